"""FitNets: the student's features, through a learned regressor, imitate the teacher's."""

from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape
from edgekd.training.losses._shapes import Layout, aligned, refuse_unlike, widths


@LOSSES.register(paper="https://arxiv.org/abs/1412.6550")
class Hint(FeatureLoss):
    """|r(F_s) - F_t|^2, the mean over batch and elements; r is a learned 1x1 convolution.

    Romero et al. 2015, equation 3, divided by the number of elements so that a weight means the
    same for every layer. Feature maps of different sizes are pooled to the smaller one. With
    `regressor = "auto"` there is none where the channel counts agree; for (B, D) features and for
    sequences (B, L, D) it is a linear layer over D.
    """

    def __init__(
        self, regressor: Literal["auto", "always"] = "auto", layout: Layout = "auto"
    ) -> None:
        super().__init__()
        self.when = regressor
        self.layout: Layout = layout
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (1, 2, 3))
        inputs, outputs = widths(student, teacher, self.layout)
        if inputs != outputs or self.when == "always":
            self.regressor = nn.Linear(inputs, outputs)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = aligned(student, teacher, self.layout)
        # A linear layer over the channels is a 1x1 convolution in any number of dimensions.
        guess = self.regressor(student.movedim(1, -1)).movedim(-1, 1)
        return torch.mean((guess - teacher) ** 2)
