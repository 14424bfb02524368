"""How teacher and student meet: one scheme a file; the file's name is its name in a recipe.

A scheme decides which networks take part, which of them learn, what each step compares, and what is
left at the end. It trains through `Situation.fit` and `Situation.teach` alone, so everything that
the one training loop promises holds for it: each phase has a folder and an epoch checkpoint of its
own there, a phase that ended is read back instead of trained again, and a run that was killed ends
with the same bits as an unbroken one.

The recipe's `losses` compare whoever learns with whoever teaches it in that scheme, and
`label_weight` is the share of the labels. A scheme's fields are what its table may set.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from edgekd.data.samples import Data
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.training.distillation import Teaching, check_teaching, teach
from edgekd.training.fusion import Fusion
from edgekd.training.loop import Batch, OnStep, Progress, StepLoss, fit
from edgekd.training.teachers import Teacher
from edgekd.values.tables import Value, parse


@dataclass(frozen=True)
class Situation:
    """What a scheme has to work with.

    `folder` is where the recipe's relative paths start from, `work` where checkpoints go and
    `cache` where runs share teachers' logits. `where` names the stage in errors. `on_step` is
    called in every phase.
    """

    teaching: Teaching
    data: Data
    teachers: Sequence[Teacher]
    work: Path
    seed: int = 0
    folder: Path = Path()
    cache: Path | None = None
    progress: Progress = lambda what, done, total: None
    on_step: OnStep | None = None
    where: str = "distill"

    def with_(self, **changes: Any) -> "Situation":
        """The same with other fields, or with other fields of the teaching."""
        own = {key: value for key, value in changes.items() if key in Situation.__annotations__}
        rest = {key: value for key, value in changes.items() if key not in own}
        if rest:
            own["teaching"] = self.teaching.model_copy(update=rest)
        return replace(self, **own)

    def check(self, student: nn.Module, teachers: Sequence[Teacher]) -> list[EdgekdError]:
        """Why these teachers can't teach that student with this teaching."""
        return check_teaching(
            self.teaching, student, data=self.data, teachers=teachers, where=self.where
        )

    def teach(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        phase: str = "",
        *,
        fusion: Fusion | None = None,
        storage: torch.dtype = torch.float32,
    ) -> nn.Module:
        """Train a student in place from frozen teachers: one phase of a scheme."""
        return teach(
            student,
            self.teaching,
            data=self.data,
            teachers=teachers,
            work=self.work / phase,
            seed=self.seed,
            progress=self.progress,
            on_step=self.on_step,
            cache=self.cache,
            where=self.where,
            fusion=fusion,
            storage=storage,
        )

    def fit(
        self,
        module: nn.Module,
        loss: StepLoss,
        phase: str = "",
        *,
        companions: nn.Module | None = None,
        identity: str = "",
        turns: int = 1,
    ) -> nn.Module:
        """Train a module in place by a loss of the scheme's own: one phase of a scheme.

        What else the loss depends on, such as a frozen network, must be told by `identity`.
        """
        return fit(
            module,
            loss,
            self.teaching,
            data=self.data,
            work=self.work / phase,
            seed=self.seed,
            progress=self.progress,
            on_step=self.on_step,
            companions=companions,
            identity=identity,
            turns=turns,
        )

    def label_loss(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """The task's own loss, for phases that learn from the labels alone."""
        smoothing = self.teaching.label_smoothing
        return self.data.task.label_loss(module(batch.x).float(), batch.y, smoothing)

    def learn_labels(self, network: nn.Module, phase: str) -> nn.Module:
        """Train a network in place from the labels alone: one phase of a scheme."""
        weights = self.teaching.sample_weights
        alone = self.with_(
            losses=(),
            label_weight=1.0,
            label_schedule=None,
            calibrate_teachers=False,
            sample_weights="equal" if weights == "disagreement" else weights,
        )
        return alone.teach(network, (), phase)

    @property
    def length(self) -> str:
        """What the plan prints of one phase."""
        return f"{self.teaching.epochs} epochs of {len(self.data.train):,} samples"

    @property
    def names(self) -> str:
        """The teachers' names, for the plan."""
        return ", ".join(teacher.name for teacher in self.teachers)


@dataclass(frozen=True)
class Taught:
    """What is left at the end: the student, and what a report should say of how it came about."""

    module: nn.Module
    note: str = ""


class Scheme(Value):
    """One way for teacher and student to meet; its fields are what a recipe's table may set.

    `example` are the keys that its table can't do without, `around` what else of a recipe it needs,
    as TOML; `edgekd methods` shows both.
    """

    example: ClassVar[Mapping[str, Any]] = {}
    around: ClassVar[str] = ""

    @abstractmethod
    def check(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        """Every reason why it can't work here; nothing is trained or changed."""

    @abstractmethod
    def cost(self, at: Situation) -> str:
        """What the plan prints of it, after a check without faults."""

    @property
    def reads_losses(self) -> bool:
        """Whether the recipe's `losses` are compared at all, or it has only a loss of its own."""
        return True

    def content(self, folder: Path) -> str:
        """A hash of what its files and networks hold, relative to the recipe's `folder`."""
        return ""

    @abstractmethod
    def teach(self, student: nn.Module, at: Situation) -> Taught:
        """Train `student`, which may be changed; teachers are left as they are, to the bit."""


def scheme_of(wish: str | Mapping[str, Any], where: str) -> Scheme:
    """The scheme that a recipe names, or describes in a table with its `name` and parameters."""
    table = {"name": wish} if isinstance(wish, str) else dict(wish)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise InputError(
            "a scheme without 'name'",
            where=where,
            allowed=", ".join(SCHEMES.names()),
            hint='scheme = { name = "mutual", peers = 2 }',
        )
    made: type[Scheme] = SCHEMES.get(name, where).make  # type: ignore[assignment]
    return parse(made, table, f"{where} ({name})")
