"""Regression on the logits of a teacher that is now and then far off."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero


@LOSSES.register(paper="https://doi.org/10.1214/aoms/1177703732")
class HuberLogits(ResponseLoss):
    """Huber of z_s - z_t: d^2 / 2 up to delta, delta (|d| - delta / 2) beyond; mean of all.

    Huber 1964: a noisy teacher's outliers pull with a bounded gradient.
    """

    def __init__(self, delta: float = 1.0) -> None:
        above_zero(delta=delta)
        super().__init__()
        self.delta = delta

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return F.huber_loss(student, teacher, reduction="none", delta=self.delta).mean(1)
