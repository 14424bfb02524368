"""Jensen-Shannon: a bounded, symmetric distance of softened probabilities."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.losses import ResponseLoss, above_zero
from edgekd.registry import LOSSES


@LOSSES.register(paper="https://doi.org/10.1109/18.61115")
class JensenShannon(ResponseLoss):
    """T^2 (KL(p_t || m) + KL(p_s || m)) / 2 with m = (p_t + p_s) / 2, the mean over the batch.

    Lin 1991, with both distributions softened at T. At T = 1 it is at most ln 2.
    """

    temperature: float

    def __init__(self, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        student = F.log_softmax(student / self.temperature, dim=1)
        teacher = F.log_softmax(teacher / self.temperature, dim=1)
        middle = torch.logaddexp(student, teacher) - math.log(2)
        both = F.kl_div(middle, teacher, reduction="batchmean", log_target=True) + F.kl_div(
            middle, student, reduction="batchmean", log_target=True
        )
        return 0.5 * self.temperature**2 * both
