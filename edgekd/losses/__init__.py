"""One distillation loss a file; the file's name is the loss's name in a recipe.

A loss is an `nn.Module` of one of three kinds, told apart by what its `forward` compares:

- `ResponseLoss`: logits of student and teacher, and the labels. Works with black-box teachers.
- `FeatureLoss`: the outputs of one layer on each side.
- `DepthsLoss`: the outputs of several layers on each side, in the order the recipe names them.

Each returns a scalar, the mean over the batch, that is zero where the student equals the teacher
unless the loss's docstring says where else its minimum is.
The constructor's signature is what a recipe's table may set; a value out of range raises
`ValueError` there. What is learned with the student (a regressor) is made in `prepare` and is left
behind after training.
"""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

Shape = tuple[int, ...]
"""Of one sample's features, the batch dimension left out: (C, H, W), (L, D) or (D,)."""


class ResponseLoss(nn.Module):
    """Compares logits (B, classes).

    `temperature` is at which several teachers' probabilities are averaged before this loss sees
    them; None averages their logits.
    """

    temperature: float | None = None

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes) twice and labels (B,) -> scalar."""


class FeatureLoss(nn.Module):
    """Compares features (B, C, H, W), (B, L, D) or (B, D) of one layer on each side.

    `outputs_will_do` is for relations between samples: with no layer named they compare logits.
    """

    outputs_will_do: ClassVar[bool] = False

    def prepare(self, student: Shape, teacher: Shape) -> None:
        """Make what is learned for these shapes; `ValueError` where they can't be bridged."""

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Features of the same batch on each side -> scalar."""


class DepthsLoss(nn.Module):
    """Compares the features of several layers on each side, at least `least` of them."""

    least: ClassVar[int] = 2

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        """Make what is learned for these shapes; `ValueError` where they can't be bridged."""

    @abstractmethod
    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """One tensor a layer, in the recipe's order -> scalar."""


Loss = ResponseLoss | FeatureLoss | DepthsLoss


def above_zero(**values: float) -> None:
    """Refuse a parameter that is zero, negative or not a number."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, found {value}")


def not_negative(**values: float) -> None:
    """Refuse a parameter that is negative or not a number."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, found {value}")
