"""Correlation congruence: the kernel matrix of a batch is the teacher's."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, above_zero


@LOSSES.register(paper="https://arxiv.org/abs/1904.01802")
class Correlation(FeatureLoss):
    """|K_s - K_t|_F^2 / B^2, K the Gaussian kernel of the normalized features as a Taylor sum.

    Peng et al. 2019, equations 3, 8 and 9: K_ij = sum_p exp(-2 g) (2 g)^p / p! (x_i . x_j)^p up to
    `order`. Sizes may differ; if no layer is named, logits are compared.
    """

    accepts_outputs = True

    def __init__(self, gamma: float = 0.4, order: int = 2) -> None:
        above_zero(gamma=gamma, order=order)
        super().__init__()
        self.gamma, self.order = gamma, order

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return ((self._kernel(student) - self._kernel(teacher)) ** 2).mean()

    def _kernel(self, features: Tensor) -> Tensor:
        flat = F.normalize(features.flatten(1), dim=1)
        products = flat @ flat.T
        total = torch.zeros_like(products)
        for power in range(self.order + 1):
            share = math.exp(-2 * self.gamma) * (2 * self.gamma) ** power / math.factorial(power)
            total = total + share * products**power
        return total
