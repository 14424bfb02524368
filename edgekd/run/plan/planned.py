"""What was asked for, and what will happen: a request and the plan that is made of it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from edgekd.backends import Backend
from edgekd.data.samples import Data
from edgekd.measure.budgets import in_words, merge_budgets
from edgekd.measure.diagnostics import Diagnostic
from edgekd.network.cost import totals
from edgekd.run.onnx_alone import is_onnx_alone
from edgekd.stages import Context, Progress, Stage
from edgekd.store import Store
from edgekd.training.teachers import Teacher
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Network, Recipe
from edgekd.values.target import Target


@dataclass(frozen=True)
class Request:
    """What the command line asked for; `budgets` are those of `--budget`.
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
    """What happens for one target, in order; `key` names all that its checks depend on."""

    target: Target
    stages: tuple[PlannedStage, ...]
    backends: dict[str, Backend]
    budgets: dict[str, float]
    key: str = ""


@dataclass(frozen=True)
class Plan:
    """A request that can work. `start` is the candidate that the first stage gets, `original` the
    trained model that everything is compared with; it teaches unless the recipe names others."""

    request: Request
    data: Data
    start: Candidate
    start_network: Network
    original: Teacher
    teachers: tuple[Teacher, ...]
    calibration: torch.Tensor
    targets: tuple[PlannedTarget, ...]
    warnings: tuple[str, ...]
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether this is an ONNX file with no module behind it."""
        return is_onnx_alone(self.request.recipe)

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
        cost = totals(self.start.module, self.start.example)
        start = f"{cost.parameters:,} parameters, {cost.macs:,} MACs"
        lines = [
            f"data: {self.data.name}, {len(self.data.train):,} to train, "
            f"{len(self.data.validation):,} to choose by, {len(self.data.test):,} to report",
            f"start: {'an ONNX file' if self.alone else start}",
            *(f"teacher: {teacher.name}" for teacher in self.teachers),
        ]
        for planned in self.targets:
            name = planned.target.name
            for number, stage in enumerate(planned.stages, 1):
                state = " (done before, reused)" if stage.cached else ""
                lines.append(f"{name}: {number}. {stage.kind}: {stage.cost}{state}")
            compilers = ", ".join(planned.backends) or "nothing: it is a file already"
            lines.append(f"{name}: compile with {compilers}, then measure")
            for metric, limit in planned.budgets.items():
                lines.append(f"{name}: budget {in_words(metric, limit)}")
        return [*lines, *(f"note: {warning}" for warning in self.warnings)]
