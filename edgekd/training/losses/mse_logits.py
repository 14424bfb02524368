"""Regression on the teacher's logits."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss


@LOSSES.register(paper="https://arxiv.org/abs/1312.6184")
class MSELogits(ResponseLoss):
    """(z_s - z_t)^2, the mean over batch and classes. Ba and Caruana 2014, equation 1."""

    def __init__(self) -> None:
        super().__init__()

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return ((student - teacher) ** 2).mean(1)
