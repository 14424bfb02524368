"""Variational information distillation: keep what lets the teacher's features be predicted."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape, above_zero
from edgekd.training.losses._shapes import Layout, aligned, refuse_unlike, widths


@LOSSES.register(paper="https://arxiv.org/abs/1904.05835")
class VID(FeatureLoss):
    """(log v_c + (F_t - m(F_s))^2 / v_c) / 2, the mean over batch and elements.

    Ahn et al. 2019, equation 5 less its constant: the negative log-likelihood of the teacher's
    features under a Gaussian whose mean m is a learned 1x1 network of three layers and whose
    variance v_c = softplus(a_c) + 1e-5 is learned for each channel, starting at `variance`. Its
    value may be negative; maps of different sizes are pooled to the smaller one.
    """

    def __init__(self, variance: float = 5.0, layout: Layout = "auto") -> None:
        above_zero(variance=variance)
        super().__init__()
        self.variance = variance
        self.layout: Layout = layout
        self.mean: nn.Module = nn.Identity()
        self.spread = nn.Parameter(torch.zeros(1))

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (1, 2, 3))
        inputs, outputs = widths(student, teacher, self.layout)
        self.mean = nn.Sequential(
            nn.Linear(inputs, outputs),
            nn.ReLU(),
            nn.Linear(outputs, outputs),
            nn.ReLU(),
            nn.Linear(outputs, outputs),
        )
        # softplus of it is the variance
        start = self.variance + math.log(-math.expm1(-self.variance))
        self.spread = nn.Parameter(torch.full((outputs,), start))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = aligned(student, teacher, self.layout)
        guess = self.mean(student.movedim(1, -1))
        variance = F.softplus(self.spread) + 1e-5
        error = (teacher.movedim(1, -1) - guess) ** 2
        return 0.5 * torch.mean(variance.log() + error / variance)
