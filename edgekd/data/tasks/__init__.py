"""One task a file: what a network's one output tensor means, and how well it fits the targets.

Every network takes one tensor (B, ...) and gives one tensor (B, ...); `Samples.y` is one tensor of
targets (N, ...). What those are is the task's to say, and nothing else in the package assumes it:

- `label_loss` trains with the targets,
- `score` is each sample's quality from 0 to 1, whose mean is what reports call accuracy, and
  `metric` the name of that mean (top-1, mean IoU, PCK ...),
- `rows` are the outputs as logits (R, classes), one row a decision (a pixel, a token), sample by
  sample, so that every loss on logits applies; None where the outputs are no logits of classes,
- `decode` turns outputs into targets: two networks agree as far as one's score against the
  other's decoded outputs goes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS
from edgekd.values.tables import build

Run = Callable[[Tensor], Tensor]
"""A deployed file or a module as a function: inputs (B, ...) to outputs (B, ...)."""

NO_LABEL = -1
"""A target that is not there: an unlabelled pixel, the padding of a shorter sequence."""


class Task(ABC):
    """What outputs and targets mean. Its fields are what a recipe's table may set.

    `integer` targets count classes from 0, with `NO_LABEL` where the task allows gaps; others are
    real numbers. `moves` says that mirroring or shifting an image leaves its target right,
    `smooths` that labels can be smoothed, `has_rows` that outputs are logits of classes and
    `labels_rows` that each of their rows has its label.
    """

    metric: ClassVar[str]
    integer: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    smooths: ClassVar[bool] = False
    has_rows: ClassVar[bool] = False
    labels_rows: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Its name in a recipe: the file that it stands in."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @abstractmethod
    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean loss of a batch against its targets; `smoothing` only where `smooths` is set."""

    @abstractmethod
    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(B,) float64: each sample's quality, 0 to 1. Not differentiated."""

    @abstractmethod
    def decode(self, outputs: Tensor) -> Tensor:
        """The targets (B, ...) that the outputs stand for; `score(outputs, decode(outputs))` is 1
        wherever there is anything to find."""

    @abstractmethod
    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """What in a part's targets (N, ...) doesn't fit this task."""

    @abstractmethod
    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Why a network's outputs for a few samples don't fit their targets `y`, if they don't."""

    def rows(self, outputs: Tensor) -> Tensor | None:
        """(R, classes) logits, as many rows a sample; None where outputs are no class logits."""
        return None

    def row_labels(self, y: Tensor) -> Tensor | None:
        """(R,) the class of each of `rows`, `NO_LABEL` for none; None where rows have no label."""
        return None

    def agreement(self, outputs: Tensor, others: Tensor) -> Tensor:
        """(B,) how far each sample's outputs say what another network's do, 0 to 1."""
        return self.score(outputs, self.decode(others))

    def classes_in(self, y: Tensor) -> int:
        """How many classes the training targets tell of; 0 where there are none to count."""
        return int(y.max()) + 1 if self.integer else 0

    def strata(self, y: Tensor) -> Tensor:
        """(N,) the groups that held-back and calibrating samples are spread over evenly."""
        return torch.zeros(len(y), dtype=torch.int64)

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Further values (B,) of each sample that a report shows the mean of, by metric; a metric's
        name ends in its unit where it has one."""
        return {}

    def rollout_metrics(self, run: Run) -> Mapping[str, Tensor]:
        """Further results of a deployed file that need it to act, by metric: (episodes,) each."""
        return {}


def task_of(given: str | Mapping[str, Any], where: str) -> Task:
    """The task that a recipe names, or describes in a table with its `name` and parameters."""
    table = {"name": given} if isinstance(given, str) else dict(given)
    name = table.pop("name", None)
    if not isinstance(name, str):
        hint = "task = { name = 'keypoints', radius = 2.0 }"
        raise InputError(
            "the task has no 'name'", where=where, allowed=", ".join(TASKS.names()), hint=hint
        )
    task: Task = build(TASKS.get(name, where), table, where)
    return task


def shape_fault(outputs: object, wanted: str, where: str) -> InputError:
    """The outputs are not what the task reads."""
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    return InputError(f"the network gives outputs of shape {shape}", where=where, allowed=wanted)


def integer_faults(y: Tensor, rank: int, classes: int, least: int, where: str) -> list[EdgekdError]:
    """Targets that aren't integers of that rank from `least` to below `classes`."""
    if y.ndim != rank or y.is_floating_point():
        kind = "integers" if not y.is_floating_point() else "floating point"
        message = f"targets of shape {tuple(y.shape)} in {kind}"
        return [InputError(message, where=where, allowed=f"integers with {rank} dimensions")]
    outside = ((y < least) | (y >= classes)).flatten()
    if not bool(outside.any()):
        return []
    first = int(outside.nonzero()[0])
    value = int(y.flatten()[first])
    sample = first // max(1, y[0].numel())
    return [
        InputError(
            f"label {value} of sample {sample} is out of range",
            where=where,
            allowed=f"{least} to {classes - 1}",
        )
    ]


def mean_cross_entropy(rows: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Over the rows (R, classes) that have a label (R,); 0 where none has one."""
    total = F.cross_entropy(
        rows, labels, ignore_index=NO_LABEL, reduction="sum", label_smoothing=smoothing
    )
    return total / (labels != NO_LABEL).sum().clamp(min=1)
