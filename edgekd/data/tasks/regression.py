"""Real numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import Direction, Task, shape_fault
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="Huber 1964")
@dataclass(frozen=True)
class Regression(Task):
    """Real numbers: outputs and targets (B, ...) of one shape.

    The score is the share of a sample's outputs that lie within `tolerance` of their targets, in
    the targets' unit.
    """

    tolerance: float = 0.1
    loss: Literal["mse", "huber"] = "mse"
    metric: ClassVar[str] = "within tolerance"
    directions: ClassVar[Mapping[str, Direction]] = {
        "absolute_error": "lower",
        "squared_error": "lower",
    }
    integer: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, found {self.tolerance}")

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean squared error, or Huber's."""
        return F.mse_loss(outputs, y) if self.loss == "mse" else F.huber_loss(outputs, y)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The share of outputs within the tolerance."""
        near = (outputs.double() - y.double()).abs() <= self.tolerance
        return near.reshape(len(y), -1).double().mean(1)

    def decode(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The mean absolute and squared error of each sample, in the targets' unit."""
        error = (outputs.double() - y.double()).reshape(len(y), -1)
        return {"absolute_error": error.abs().mean(1), "squared_error": error.square().mean(1)}

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Targets that are not finite real numbers with at least two dimensions."""
        if not y.is_floating_point() or y.ndim < 2:
            message = f"targets of shape {tuple(y.shape)} in {y.dtype}"
            hint = "give single targets as (N, 1)"
            return [InputError(message, where=where, allowed="real numbers (N, ...)", hint=hint)]
        if not bool(torch.isfinite(y).all()):
            return [InputError("NaN or infinity among the targets", where=where)]
        return []

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything but the targets' shape."""
        if isinstance(outputs, Tensor) and outputs.shape == y.shape:
            return None
        return shape_fault(outputs, f"{tuple(y.shape)}: the shape of the targets", where)
