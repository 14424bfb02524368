"""Cosine distance of hidden states."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape
from edgekd.training.losses._shapes import Layout, aligned, refuse_unlike, widths


@LOSSES.register(paper="https://arxiv.org/abs/1910.01108")
class Cosine(FeatureLoss):
    """1 - cos(h_s, h_t) over the channels, the mean over batch and positions.

    Sanh et al. 2019 (DistilBERT), section 3. If the widths differ, a linear layer over the
    student's channels is trained along with the student.
    """

    def __init__(self, layout: Layout = "auto") -> None:
        super().__init__()
        self.layout: Layout = layout
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (1, 2, 3))
        inputs, outputs = widths(student, teacher, self.layout)
        if inputs != outputs:
            self.regressor = nn.Linear(inputs, outputs)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = aligned(student, teacher, self.layout)
        guess = self.regressor(student.movedim(1, -1))
        return torch.mean(1 - F.cosine_similarity(guess, teacher.movedim(1, -1), dim=-1))
