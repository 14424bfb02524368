"""One task per file: what a network's output means, and how well it fits the targets.

A network returns a tensor (B, ...) or a tree of them, of which the task reads its main output;
`Samples.y` are the targets (N, ...). Only the task knows what those mean:

- `label_loss` trains with the targets,
- `score` is each sample's quality from 0 to 1, whose mean reports call accuracy, and `metric` the
  name of that mean (top-1, mean IoU, PCK ...),
- `rows` are the outputs as logits (R, classes), one row per decision (a pixel, a token), sample by
  sample, so that every loss on logits applies; None if the outputs are not class logits,
- `decode` turns outputs into targets: the agreement of two networks is the score of one against
  the decoded outputs of the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_type_hints

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS
from edgekd.values.box_search import BoxSearch
from edgekd.values.tables import build
from edgekd.values.tree import Tree, as_float, leaf, rows

Run = Callable[[Any], Tensor]
"""A deployed file or a module as a function: a tree of inputs (B, ...) to the output (B, ...) that
the task reads."""

FirstSamples = Callable[[int], tuple[Tree, Tensor]]
"""Up to that many test samples, evenly drawn: their inputs and targets."""

VALUES: Sequence[Mapping[str, Any]] = ({"name": "regression", "weight": 0.9},)
"""The default losses where outputs are not the logits of one class each: their squared error."""

Direction = Literal["higher", "lower"]
"""Which values of a metric are better."""

NO_LABEL = -1
"""A missing target: an unlabelled pixel, the padding of a shorter sequence."""


@dataclass(frozen=True, eq=False)
class Pooled:
    """A metric over samples together: a function `of` the sum (K,) of what each sample adds to it,
    `parts` (N, K). An error rate adds edits and lengths."""

    parts: Tensor
    of: Callable[[Tensor], float]


@dataclass(frozen=True)
class Task(ABC):
    """What outputs and targets mean. Its fields are what a recipe's table may set.

    `output` is the output that the task reads, by name or position, if a network has several: by
    default the only one, or that called "logits". A task with `reads_all` gets the whole tree. One
    that `judges_whole` may have a metric that is not a mean over samples; one that `keeps_targets`
    reads integers and real numbers alike, and one that `reads_targets_of` other tasks has targets
    of their form.

    `directions` are the metrics beside the score, each with whether a higher or a lower value is
    better. `integer` targets count classes from 0, with `NO_LABEL` if the task allows gaps; other
    targets are real numbers. `moves` says that mirroring or shifting an image leaves its target
    correct, `smooths` that labels can be smoothed, `has_rows` that outputs are class logits, and
    `labels_rows` that each of their rows has a label.
    """

    output: str | int | None = field(default=None, kw_only=True)
    metric: ClassVar[str]
    directions: ClassVar[Mapping[str, Direction]] = {}
    reads_all: ClassVar[bool] = False
    judges_whole: ClassVar[bool] = False
    keeps_targets: ClassVar[bool] = False
    reads_targets_of: ClassVar[tuple[str, ...]] = ()
    integer: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    smooths: ClassVar[bool] = False
    has_rows: ClassVar[bool] = False
    labels_rows: ClassVar[bool] = False
    rollout_unit: ClassVar[str] = "episodes"

    @property
    def search(self) -> BoxSearch | None:
        """The search for boxes that files do by themselves where the recipe asks for it."""
        return None

    def searched(self, outputs: Any) -> Tensor:
        """(B, most, 6) what the same search in PyTorch finds in the outputs that the task reads."""
        raise InputError("files of this task search for no boxes", where=f"task {self.name}")

    def of_boxes(self) -> "Task":
        """The task that judges what such a file gives, as this one judges a network's outputs."""
        raise InputError("files of this task search for no boxes", where=f"task {self.name}")

    @property
    def name(self) -> str:
        """Its name in a recipe, which is the name of its file."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def with_form(self, form: Any, where: str) -> "Task":
        """The task for targets that are several tensors of that `TargetForm`; most read one."""
        raise InputError(
            f"a sample has several targets: {', '.join(form.names)}",
            where=where,
            allowed=f"one tensor, which {self.name} reads",
            hint="a task of your own gets them all: task = { metric = 'mine:metric' }",
        )

    def main(self, outputs: Tree) -> Any:
        """The output that the task reads, or all of them."""
        return outputs if self.reads_all else leaf(outputs, self.output, f"task {self.name}")

    def read(self, network: Callable[[Tree], Tree], x: Tree) -> Any:
        """The same of what a network gives for a batch, in float32."""
        return as_float(self.main(network(x)))

    @abstractmethod
    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean loss of a batch against its targets; `smoothing` only where `smooths` is set."""

    @abstractmethod
    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(B,) float64: each sample's quality, 0 to 1. Not differentiated."""

    def judged(self, outputs: Any, y: Tensor) -> Tensor:
        """(B,) the scores, or one number if the metric is not a mean over samples."""
        return self.score(outputs, y)

    def redrawn(self, outputs: Any, y: Tensor, draws: Sequence[Tensor]) -> list[float]:
        """What `judged` gives for the samples at each of these positions, where it is one
        number."""
        return [float(self.judged(rows(outputs, draw), y[draw])) for draw in draws]

    @abstractmethod
    def decode(self, outputs: Tensor) -> Tensor:
        """The targets (B, ...) that the outputs mean; `score(outputs, decode(outputs))` is 1
        unless there is nothing to find."""

    @abstractmethod
    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Everything in a part's targets (N, ...) that doesn't fit this task."""

    def judging_faults(self, y: Tensor, where: str) -> list[EdgekdError]:
        """Everything in the targets of a part for validation or test that leaves nothing to
        judge by."""
        return []

    def input_faults(self, x: Tree, where: str) -> list[EdgekdError]:
        """Everything in a batch of inputs that the task can't work with."""
        return []

    @abstractmethod
    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Why a network's outputs for a few samples don't fit their targets `y`, if they don't."""

    def rows(self, outputs: Tensor) -> Tensor | None:
        """(R, classes) logits, equally many rows per sample; None if there are no class logits."""
        return None

    def row_labels(self, y: Tensor) -> Tensor | None:
        """(R,) the class of each of `rows`, `NO_LABEL` for none; None if rows have no labels."""
        return None

    def soft_losses(self, y: Tensor) -> Sequence[Mapping[str, Any]]:
        """The tables of the losses between student and teacher for a stage that names none."""
        return ({"name": "kl", "weight": 0.9, "temperature": 4.0},) if self.has_rows else VALUES

    def agreement(self, outputs: Tensor, others: Tensor) -> Tensor:
        """(B,) how far each sample's outputs agree with another network's, 0 to 1."""
        return self.score(outputs, self.decode(others))

    def classes_in(self, y: Tensor) -> int:
        """How many classes the training targets have; 0 if there are none to count."""
        return int(y.max()) + 1 if self.integer else 0

    def strata(self, y: Tensor) -> Tensor:
        """(N,) the groups over which held-back and calibration samples are spread evenly."""
        return torch.zeros(len(y), dtype=torch.int64)

    def with_partners(self, y: Tensor, chosen: Tensor) -> Tensor:
        """The positions `chosen` and those of the samples that must go where they go."""
        return chosen

    def measured(self) -> tuple[str, ...]:
        """The metrics beside the score that a report has, which are budgets, too."""
        return tuple(self.directions)

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Values (B,) whose means a report shows besides the score, by metric; a metric's name ends
        in its unit if it has one."""
        return {}

    def rollout_metrics(self, run: Run, first: FirstSamples) -> Mapping[str, Tensor | Pooled]:
        """Results of letting a deployed file act by itself, by metric: (episodes,) each, or pooled
        over them. `rollout_unit` says what an episode is."""
        return {}


def metric_directions() -> dict[str, Direction]:
    """The metrics of all tasks beside their scores, and which values of each are better."""
    found: dict[str, Direction] = {}
    for name in TASKS.names():
        make = TASKS.get(name).make
        kind = make if isinstance(make, type) else get_type_hints(make).get("return")
        if isinstance(kind, type) and issubclass(kind, Task):
            found |= kind.directions
    return found


def task_of(given: str | Mapping[str, Any], where: str) -> Task:
    """The task that a recipe names, or describes in a table with its `name` and parameters."""
    table = {"name": given} if isinstance(given, str) else dict(given)
    name = table.pop("name", "own" if "metric" in table else None)
    if not isinstance(name, str):
        hint = "task = { name = 'keypoints', radius = 2.0 }, or a metric = 'module:function'"
        raise InputError(
            "the task has no 'name'", where=where, allowed=", ".join(TASKS.names()), hint=hint
        )
    task: Task = build(TASKS.get(name, where), table, where)
    return task


def shape_fault(outputs: object, wanted: str, where: str, hint: str = "") -> InputError:
    """The error for outputs that the task can't read."""
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    message = f"the network gives outputs of shape {shape}"
    return InputError(message, where=where, allowed=wanted, hint=hint)


def classes_hint(outputs: object, axis: int, classes: int) -> str:
    """What to do about outputs with more classes than the labels show."""
    if not isinstance(outputs, Tensor) or outputs.ndim <= axis or outputs.shape[axis] <= classes:
        return ""
    count = outputs.shape[axis]
    return f"the labels show {classes} classes; if there are more, return 'classes': {count} too"


def integer_faults(y: Tensor, rank: int, classes: int, least: int, where: str) -> list[EdgekdError]:
    """Targets that aren't integers of that rank, at least `least` and below `classes`."""
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
            allowed=f"0 to {classes - 1}" + (", or -1 for none" if least == NO_LABEL else ""),
        )
    ]


def mean_cross_entropy(rows: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """The mean over the rows (R, classes) that have a label (R,); 0 if none has one."""
    total = F.cross_entropy(
        rows, labels, ignore_index=NO_LABEL, reduction="sum", label_smoothing=smoothing
    )
    return total / (labels != NO_LABEL).sum().clamp(min=1)
