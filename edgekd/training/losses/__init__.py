"""One distillation loss per file; the file's name is the loss's name in a recipe.

A loss is an `nn.Module` of one of four kinds, distinguished by what its `forward` compares:

- `ResponseLoss`: rows of class logits of student and teacher, and their labels. Works with
  black-box teachers, and for every task whose outputs are rows of logits (a pixel, a token).
- `OutputLoss`: the networks' outputs as they are, and the targets. For tasks in which the rows
  belong together (a heatmap, a sequence, proposals) or are not logits at all.
- `FeatureLoss`: the outputs of one layer on each side.
- `DepthsLoss`: the outputs of several layers on each side, in the order the recipe names them.

Each returns a scalar, the mean over the batch, that is zero if the student equals the teacher,
unless the loss's docstring says where its minimum is. The constructor's signature is what a
recipe's table may set; a value out of range raises `ValueError`. Modules that are trained with the
student (a regressor) are made in `prepare` and discarded after training.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from edgekd.values.tree import Tree

Shape = tuple[int, ...]
"""Of one sample's features, the batch dimension left out: (C, H, W), (L, D) or (D,)."""

NEEDS = (
    "targets", "index", "inputs", "shown",
    "student_outputs", "teacher_outputs", "student_network", "teacher_network",
)  # fmt: skip
"""What a loss may ask for by name in `needs`, handed to `forward` as keyword arguments: the batch's
targets (B, ...), the samples' positions (B,) in the training set, the inputs (B, ...) and those
that the teacher sees, the networks' outputs (B, ...), and the networks themselves."""


class ResponseLoss(nn.Module):
    """Compares rows of logits (R, classes); R is the batch, or all pixels or tokens in it.

    `temperature` may be set between two steps: a float, a tensor of one element (if it is learned)
    or (R, 1), one per row. `labelled` says that the loss reads the labels.
    """

    temperature: float | Tensor | None = None
    labelled: ClassVar[bool] = False

    @property
    def averaged_at(self) -> float | Tensor | None:
        """At which temperature several teachers' probabilities are averaged before this loss sees
        them; None averages their logits."""
        return self.temperature

    @abstractmethod
    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Logits (R, classes) twice and labels (R,) -> (R,), the loss of each row."""

    def forward(
        self, student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The mean over the rows, 0 where there are none; `weights` (R,) of mean one make some of
        them count more."""
        if not len(student):
            return student.sum()
        values = self.each(student, teacher, labels)
        return values.mean() if weights is None else (weights * values).mean()


class OutputLoss(nn.Module):
    """Compares outputs (B, ...) of one shape, knowing the targets (B, ...) of the data's task.

    `tasks` are those whose outputs or targets it reads; an empty tuple means any fitting shape.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[str, ...]] = ()

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        """Make what is learned for these shapes of one sample; `ValueError` where they are not what
        the loss reads."""

    def reads(self, inputs: Tree) -> None:
        """`ValueError` for inputs (1, ...) of a structure that the loss does not read."""

    def remember(self, samples: int) -> None:
        """Make what holds a row for each training sample; called after `prepare`."""

    forward: Callable[..., Tensor]
    """(student (B, ...), teacher (B, ...), targets (B, ...), *, what it `needs`) -> scalar."""


class FeatureLoss(nn.Module):
    """Compares features (B, C, H, W), (B, L, D) or (B, D) of one layer on each side.

    `accepts_outputs` marks losses on relations between samples, which compare outputs if no layer
    is named.
    """

    accepts_outputs: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[str, ...]] = ()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        """Make what is learned for these shapes; `ValueError` where they can't be matched."""

    def remember(self, samples: int) -> None:
        """Make what holds a row for each training sample; called after `prepare`."""

    forward: Callable[..., Tensor]
    """(features of the student, those of the teacher, *, what it `needs`) -> scalar."""


class DepthsLoss(nn.Module):
    """Compares the features of several layers on each side, at least `least` of them.

    `automatic` says which layers `layers = "auto"` takes: the "embedding" before the first block,
    each "block" itself, its "attention" weights or its "value" projection, in that order; only
    those of the last pair of blocks if `deepest` is set.
    """

    least: ClassVar[int] = 2
    deepest: ClassVar[bool] = False
    automatic: ClassVar[tuple[str, ...]] = ("block",)
    needs: ClassVar[tuple[str, ...]] = ()

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        """Make what is learned for these shapes; `ValueError` where they can't be matched."""

    def remember(self, samples: int) -> None:
        """Make what holds a row for each training sample; called after `prepare`."""

    forward: Callable[..., Tensor]
    """(one tensor a layer of the student, of the teacher, *, what it `needs`) -> scalar."""


Loss = ResponseLoss | OutputLoss | FeatureLoss | DepthsLoss


def above_zero(**values: float) -> None:
    """Refuse a parameter that is zero, negative or not a number."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, found {value}")


def not_all_zero(**values: float) -> None:
    """Refuse weights that leave nothing of a loss."""
    if not any(values.values()):
        raise ValueError(f"{', '.join(values)}: all zero, so there is nothing to learn")


def not_negative(**values: float) -> None:
    """Refuse a parameter that is negative or not a number."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, found {value}")
