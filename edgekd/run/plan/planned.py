"""A request, and the plan made from it. A plan compresses one `Subject`; `edgekd.run.subjects` has
its kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch

from edgekd.backends import Backend, Follower
from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.errors import Collector, EdgekdError
from edgekd.measure.budgets import format_budget, merge_budgets
from edgekd.measure.diagnostics import Diagnostic
from edgekd.network.evaluation import evaluating
from edgekd.report.values import ArtifactReport, Layers, StageReport
from edgekd.run.compiled import Compiled
from edgekd.stages import Context, Progress, Stage
from edgekd.store import Store
from edgekd.training.context import OnEpoch
from edgekd.training.teachers import Teacher
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Network, Recipe
from edgekd.values.sizes import OpenSize, described_sizes
from edgekd.values.tables import Value
from edgekd.values.target import Target
from edgekd.values.tree import Tree


@dataclass(frozen=True)
class Request:
    """What the user asked for. `budgets` override the recipe's and the target's; `command` is
    the command line that the report records. `baseline` says whether the uncompressed teacher is
    compiled and measured too. `product` is the only format that is deployed, if set: flash and
    memory budgets do not apply to the files it is built from. `untrained` is the folder where the
    plan keeps the files that it compiles before training; without it they are deleted."""

    recipe: Recipe
    targets: tuple[Target, ...]
    out: Path
    device: str | None = None
    accept: tuple[str, ...] = ()
    budgets: dict[str, float] = field(default_factory=dict)
    quick: bool = False
    resume: bool = True
    cache: Path | None = None
    baseline: bool = True
    product: str = ""
    command: str = ""
    untrained: Path | None = None

    @property
    def resolved(self) -> Recipe:
        """The recipe as it will run, with the command line's budgets merged in."""
        budgets = merge_budgets(self.recipe.budgets, self.budgets)
        return self.recipe.model_copy(update={"budgets": budgets})


@dataclass(frozen=True)
class PlannedStage:
    """One stage on one target: its key, and whether its result is already in the store."""

    kind: str
    stage: Stage
    key: str
    cost: str
    cached: bool


class ExpectedFile(Value):
    """A file as the plan compiled it before any training: its format and size, and the bytes that
    its tensors take at least while it runs (None if nothing tells). `final` says that the run
    compiles it with the same options, so that it is as fast as the deployed file; `artifact` is the
    file itself if the plan kept it."""

    format: str
    bytes: int
    planned_bytes: int | None = None
    final: bool = True
    artifact: Artifact | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the file itself is still there."""
        return self.artifact is not None and self.artifact.path.is_file()


@dataclass(frozen=True)
class PlannedTarget:
    """The plan for one target. `key` covers everything that its checks depend on. `unusable` are
    the target's backends that can't be used here, with the reasons; `expected` are the files of
    the others, before training. `notes` say what stages will leave as it is."""

    target: Target
    stages: tuple[PlannedStage, ...]
    backends: dict[str, Backend | Follower]
    budgets: dict[str, float]
    key: str = ""
    unusable: dict[str, EdgekdError] = field(default_factory=dict)
    expected: tuple[ExpectedFile, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A request that passed all checks. `start` is the first stage's input; `original` is the
    trained model that everything is compared with, and the teacher unless the recipe names
    others. `on_epoch` is called after each epoch of each stage's training."""

    request: Request
    subject: "Subject"
    data: Data
    start: Candidate
    start_network: Network
    original: Teacher
    teachers: tuple[Teacher, ...]
    calibration: Tree
    targets: tuple[PlannedTarget, ...]
    warnings: tuple[str, ...]
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)
    on_epoch: OnEpoch | None = None

    @cached_property
    def store(self) -> Store:
        """The store of finished stages in this output folder."""
        return Store(self.request.out / "stages", self.request.resume)

    @cached_property
    def output_form(self) -> Tree:
        """The network's outputs for one sample: their structure and names."""
        with evaluating(self.start.module), torch.no_grad():
            return self.start.module(self.start.example)

    def context(self, target: Target, work: Path, progress: Progress) -> Context:
        """The context that a stage of this plan runs in."""
        return Context(
            target=target,
            data=self.data,
            teachers=self.teachers,
            work=work,
            seed=self.request.recipe.seed,
            cache=self.request.cache,
            calibration=self.calibration,
            folder=self.request.recipe.folder,
            progress=progress,
            on_epoch=self.on_epoch,
        )

    def lines(self) -> list[str]:
        """The plan as text, one line per step."""
        lines = [
            f"data: {self.data.name}, {len(self.data.train):,} training, "
            f"{len(self.data.validation):,} validation and {len(self.data.test):,} test samples",
            *(f"data: {note}" for note in self.data.notes),
            f"start: {self.subject.summary(self.start)}",
            *(f"teacher: {teacher.name}" for teacher in self.teachers),
        ]
        for planned in self.targets:
            name = planned.target.name
            for number, stage in enumerate(planned.stages, 1):
                state = " (cached)" if stage.cached else ""
                lines.append(f"{name}: {number}. {stage.kind}: {stage.cost}{state}")
            lines += [f"{name}: {note}" for note in planned.notes]
            compilers = ", ".join(planned.backends)
            steps = f"compile with {compilers}, then measure" if compilers else "measure the file"
            lines.append(f"{name}: {steps}")
            lines += [f"{name}: {line}" for line in size_lines(planned.backends, self.start.open)]
            lines += [f"{name}: {line}" for line in box_lines(planned.backends, self.data.task)]
            for backend, error in planned.unusable.items():
                lines.append(f"{name}: without {backend}: {error.message} ({error.hint})")
            for metric, limit in planned.budgets.items():
                lines.append(f"{name}: budget {format_budget(metric, limit)}")
        return [*lines, *(f"note: {warning}" for warning in self.warnings)]


def size_lines(backends: Mapping[str, Backend | Follower], sizes: Sequence[OpenSize]) -> list[str]:
    """Which files leave the sizes open that the recipe lists, and which are for one size."""
    if not sizes:
        return []
    free = [name for name, backend in backends.items() if backend.info.leaves_open]
    fixed = [name for name in backends if name not in free]
    whole = ", ".join(["batch 1", *(f"{size.name} {size.max}" for size in sizes)])
    lines = [f"{', '.join(free)}: sizes left open: {described_sizes(sizes)}"] if free else []
    return [*lines, *([f"{', '.join(fixed)}: fixed at {whole}"] if fixed else [])]


def box_lines(backends: Mapping[str, Backend | Follower], task: Task) -> list[str]:
    """Which backends give a second file, with the search for boxes in it."""
    search = task.search
    if search is None:
        return []
    return [
        f"{name}: a second file finds up to {search.most:,} boxes of an image by itself "
        f"(surer than {search.confidence:g}, suppressed from an overlap of {search.overlap:g})"
        for name, backend in backends.items()
        if backend.info.finds_boxes
    ]


@dataclass(frozen=True)
class TargetFiles:
    """The files built for one target. `baseline` is the uncompressed teacher's file, if there is
    one; `network` is the last candidate with float weights, or None if there is only a file.
    `failures` are the errors of backends that built no file."""

    files: tuple[Compiled, ...]
    baseline: Compiled | None = None
    network: Candidate | None = None
    stages: tuple[StageReport, ...] = ()
    failures: dict[str, EdgekdError] = field(default_factory=dict)


class Subject(Protocol):
    """What a run compresses: a network that stages can change, or a finished file."""

    def start(self, recipe: Recipe, data: Data, original: Teacher | None) -> Candidate | None:
        """The first stage's input; None if the trained model could not be loaded."""

    def summary(self, start: Candidate) -> str:
        """How the plan describes the subject."""

    def diagnostic_faults(self, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
        """A fault for each diagnostic that this kind of subject does not support."""

    def plan_target(
        self, plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
    ) -> PlannedTarget:
        """One target's part of the plan; its faults go to `collect`."""

    def make(self, plan: Plan, planned: PlannedTarget, progress: Progress) -> TargetFiles:
        """Run the stages and compile; each step is cached by content."""

    def stage_reports(
        self, made: TargetFiles, reports: Sequence[ArtifactReport], seconds: float
    ) -> tuple[StageReport, ...]:
        """One target's part of the report. `reports` are those of its files; `seconds` is the
        time that building and checking them took."""

    def layers(self, plan: Plan, made: TargetFiles) -> Layers:
        """Every layer's cost before and after."""
