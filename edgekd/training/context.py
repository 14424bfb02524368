"""The context of stages, schemes and the training loop: one value, passed from one to the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekd.data.samples import Data
from edgekd.training.teachers import Teacher
from edgekd.training.teaching import Teaching
from edgekd.values.layer_timer import LayerTimer, untimed
from edgekd.values.progress import Progress, silent
from edgekd.values.target import Target
from edgekd.values.tree import Tree

OnStep = Callable[[int, int], None]
"""Called as on_step(done, total) after the optimizer's step; gradients are still there. State that
it accumulates survives a kill only in buffers or parameters of the module or its companions."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A finished epoch, number `done` of `epochs`, of the training whose checkpoint is in `work`.
    `validation` is the accuracy on the validation samples, None if there are none."""

    work: Path
    done: int
    epochs: int
    validation: float | None


OnEpoch = Callable[[Epoch], None]
"""Called once an epoch's checkpoint is on disk; an exception ends the training there."""


@dataclass(frozen=True)
class Context:
    """Everything besides the network that training, and a stage as a whole, may use. `teaching`
    says how long to train and with which losses; a stage sets its own. `work` is a folder for epoch
    checkpoints, from which an interrupted run resumes. `cache` is shared by runs and holds
    teachers' logits by content; without it they are stored under `work`. The recipe's paths are
    relative to `folder`. `calibration` (N, ...) are the samples for calibrating ranges. `on_step`
    and `on_epoch` are called in every phase. `where` names the stage in errors. `time_layers` runs
    a candidate on the target's device.
    """

    target: Target
    data: Data
    teachers: Sequence[Teacher]
    work: Path
    teaching: Teaching = field(default_factory=Teaching)
    seed: int = 0
    cache: Path | None = None
    folder: Path = Path()
    calibration: Tree | None = None
    progress: Progress = silent
    on_step: OnStep | None = None
    on_epoch: OnEpoch | None = None
    where: str = "distill"
    time_layers: LayerTimer = untimed

    @property
    def losses(self) -> Sequence[Mapping[str, Any]]:
        """The tables of the teaching's losses: those of the task where it has none."""
        given = self.teaching.losses
        return self.data.task.soft_losses(self.data.train.y) if given is None else given

    def with_teaching(self, **keys: object) -> "Context":
        """A copy with other values for some keys of the teaching."""
        return replace(self, teaching=self.teaching.model_copy(update=keys))

    def with_teachers(self, teachers: Sequence[Teacher]) -> "Context":
        """A copy with other teachers."""
        return replace(self, teachers=teachers)

    def phase(self, name: str) -> "Context":
        """A copy with its own folder, for one of several training phases."""
        return replace(self, work=self.work / name)

    @property
    def logits_folder(self) -> Path:
        """The folder for teachers' logits."""
        return self.cache or self.work / "logits"

    @property
    def length(self) -> str:
        """The length of one training as the plan prints it: '12 epochs of 60,000 samples'."""
        return f"{self.teaching.epochs} epochs of {len(self.data.train):,} samples"

    @property
    def names(self) -> str:
        """The teachers' names as the plan prints them."""
        return ", ".join(teacher.name for teacher in self.teachers)
