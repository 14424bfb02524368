"""Neuron selectivity transfer: the same regions excite the student's channels."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape
from edgekd.training.losses._kernels import discrepancy, polynomial, unit_channels
from edgekd.training.losses._shapes import Layout, aligned, refuse_unlike


@LOSSES.register(paper="https://arxiv.org/abs/1707.01219")
class NST(FeatureLoss):
    """MMD^2 with the kernel (x . y)^2 between the normalized maps of the channels.

    Huang and Wang 2017, equation 10 with d = 2, c = 0, their best kernel. Channel counts need not
    agree; maps of different sizes are pooled to the smaller one.
    """

    def __init__(self, layout: Layout = "auto") -> None:
        super().__init__()
        self.layout: Layout = layout

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (2, 3))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = aligned(student, teacher, self.layout)
        return discrepancy(unit_channels(student), unit_channels(teacher), polynomial)
