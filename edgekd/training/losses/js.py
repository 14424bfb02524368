"""Jensen-Shannon: a bounded, symmetric distance of softened probabilities."""

import math

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero
from edgekd.training.losses._rows import divergence, softened, squared


@LOSSES.register(paper="https://doi.org/10.1109/18.61115")
class JensenShannon(ResponseLoss):
    """T^2 (KL(p_t || m) + KL(p_s || m)) / 2 with m = (p_t + p_s) / 2, the mean over the batch.

    Lin 1991, with both distributions softened at T. At T = 1 it is at most ln 2.
    """

    temperature: float | Tensor

    def __init__(self, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        mine, theirs = softened(student, self.temperature), softened(teacher, self.temperature)
        middle = torch.logaddexp(mine, theirs) - math.log(2)
        both = divergence(theirs, middle) + divergence(mine, middle)
        return 0.5 * squared(self.temperature) * both
