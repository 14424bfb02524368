"""Maximum mean discrepancy between channels, with a kernel of one's choice."""

from typing import Literal

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape
from edgekd.training.losses._kernels import (
    discrepancy,
    gaussian_for,
    linear,
    polynomial,
    unit_channels,
)
from edgekd.training.losses._shapes import Layout, aligned, refuse_unlike


@LOSSES.register(paper="https://arxiv.org/abs/1707.01219")
class MMD(FeatureLoss):
    """MMD^2 = mean k(t, t') + mean k(s, s') - 2 mean k(s, t) of the channels' normalized maps.

    Huang and Wang 2017, equation 5. Kernels: linear x . y, polynomial (x . y)^2, gaussian
    exp(-|x - y|^2 / 2 s^2) with s^2 the mean squared distance. Channel counts need not agree.
    """

    def __init__(
        self,
        kernel: Literal["linear", "polynomial", "gaussian"] = "gaussian",
        layout: Layout = "auto",
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.layout: Layout = layout

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (2, 3))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = aligned(student, teacher, self.layout)
        mine, theirs = unit_channels(student), unit_channels(teacher)
        if self.kernel == "gaussian":
            return discrepancy(mine, theirs, gaussian_for(mine, theirs))
        return discrepancy(mine, theirs, linear if self.kernel == "linear" else polynomial)
