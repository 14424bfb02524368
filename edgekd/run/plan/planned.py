"""What was asked for, and what will happen: a request and the plan that is made of it.

A plan is for one `Subject`, the thing that is compressed. `edgekd.run.subjects` has the kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch

from edgekd.backends import Backend, Follower
from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError
from edgekd.measure.budgets import format_budget, merge_budgets
from edgekd.measure.diagnostics import Diagnostic
from edgekd.report.values import ArtifactReport, Layers, StageReport
from edgekd.run.compiled import Compiled
from edgekd.stages import Context, Progress, Stage
from edgekd.store import Store
from edgekd.training.teachers import Teacher
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Network, Recipe
from edgekd.values.target import Target


@dataclass(frozen=True)
class Request:
    """What was asked for; `budgets` go before the recipe's and the target's, and `command` is what
    the report says it was made by.
    `baseline` is whether the uncompressed teacher is compiled and measured beside the files.
    `product` is the format that alone is deployed: of files on the way to it, flash and memory are
    not held against budgets."""

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

    @property
    def resolved(self) -> Recipe:
        """The recipe as it runs, with the command line's budgets in place of its own."""
        budgets = merge_budgets(self.recipe.budgets, self.budgets)
        return self.recipe.model_copy(update={"budgets": budgets})


@dataclass(frozen=True)
class PlannedStage:
    """One stage on one target: its key, and whether its result is already there."""

    kind: str
    stage: Stage
    key: str
    cost: str
    cached: bool


@dataclass(frozen=True)
class PlannedTarget:
    """What happens for one target, in order; `key` names all that its checks depend on.
    `unusable` are the target's backends that can't be used here, with the reasons."""

    target: Target
    stages: tuple[PlannedStage, ...]
    backends: dict[str, Backend | Follower]
    budgets: dict[str, float]
    key: str = ""
    unusable: dict[str, EdgekdError] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A request that can work. `start` is the candidate that the first stage gets, `original` the
    trained model that everything is compared with; it teaches unless the recipe names others."""

    request: Request
    subject: "Subject"
    data: Data
    start: Candidate
    start_network: Network
    original: Teacher
    teachers: tuple[Teacher, ...]
    calibration: torch.Tensor
    targets: tuple[PlannedTarget, ...]
    warnings: tuple[str, ...]
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)

    @cached_property
    def store(self) -> Store:
        """Where finished stages of this output folder are."""
        return Store(self.request.out / "stages", self.request.resume)

    def context(self, target: Target, work: Path, progress: Progress) -> Context:
        """What a stage of this plan may use."""
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
        )

    def lines(self) -> list[str]:
        """The plan as a person reads it, a line a step."""
        lines = [
            f"data: {self.data.name}, {len(self.data.train):,} training, "
            f"{len(self.data.validation):,} validation and {len(self.data.test):,} test samples",
            f"start: {self.subject.summary(self.start)}",
            *(f"teacher: {teacher.name}" for teacher in self.teachers),
        ]
        for planned in self.targets:
            name = planned.target.name
            for number, stage in enumerate(planned.stages, 1):
                state = " (done before, reused)" if stage.cached else ""
                lines.append(f"{name}: {number}. {stage.kind}: {stage.cost}{state}")
            compilers = ", ".join(planned.backends)
            steps = f"compile with {compilers}, then measure" if compilers else "measure the file"
            lines.append(f"{name}: {steps}")
            for backend, error in planned.unusable.items():
                lines.append(f"{name}: without {backend}: {error.message} ({error.hint})")
            for metric, limit in planned.budgets.items():
                lines.append(f"{name}: budget {format_budget(metric, limit)}")
        return [*lines, *(f"note: {warning}" for warning in self.warnings)]


@dataclass(frozen=True)
class TargetFiles:
    """What was made for one target. `baseline` is the uncompressed teacher's file, if it has one;
    `network` is the last candidate with float weights, and None where there is only a file.
    `failures` are the errors of backends that made no file."""

    files: tuple[Compiled, ...]
    baseline: Compiled | None = None
    network: Candidate | None = None
    stages: tuple[StageReport, ...] = ()
    failures: dict[str, EdgekdError] = field(default_factory=dict)


class Subject(Protocol):
    """What a run compresses: a network that stages can change, or a file that is finished."""

    def start(self, recipe: Recipe, data: Data, original: Teacher | None) -> Candidate | None:
        """What the first stage gets; None if the trained model could not be loaded."""

    def summary(self, start: Candidate) -> str:
        """The plan's words for what is compressed."""

    def diagnostic_faults(self, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
        """Diagnostics that such a subject does not support."""

    def plan_target(
        self, plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
    ) -> PlannedTarget:
        """One target's part of the plan; its faults go to `collect`."""

    def make(self, plan: Plan, planned: PlannedTarget, progress: Progress) -> TargetFiles:
        """Run the stages and compile, each step kept by content."""

    def stage_reports(
        self, made: TargetFiles, reports: Sequence[ArtifactReport], seconds: float
    ) -> tuple[StageReport, ...]:
        """The stages of one target; `reports` are those of its files, `seconds` the time that
        making and proving them took."""

    def layers(self, plan: Plan, made: TargetFiles) -> Layers:
        """Every layer's cost before and after."""
