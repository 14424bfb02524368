"""Cosine distance of hidden states."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.losses import FeatureLoss, Shape
from edgekd.losses._shapes import (
    Layout,
    channels_first,
    refuse_unlike,
    same_size,
    shape_channels_first,
)
from edgekd.registry import LOSSES


@LOSSES.register(paper="https://arxiv.org/abs/1910.01108")
class Cosine(FeatureLoss):
    """1 - cos(h_s, h_t) over the channels, the mean over batch and positions.

    Sanh et al. 2019 (DistilBERT), section 3. Where the widths differ a linear layer over the
    student's channels is learned along.
    """

    def __init__(self, layout: Layout = "auto") -> None:
        super().__init__()
        self.layout: Layout = layout
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (1, 2, 3))
        inputs = shape_channels_first(student, self.layout)[0]
        outputs = shape_channels_first(teacher, self.layout)[0]
        if inputs != outputs:
            self.regressor = nn.Linear(inputs, outputs)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student = channels_first(student, self.layout)
        teacher = channels_first(teacher, self.layout)
        student, teacher = same_size(student, teacher)
        guess = self.regressor(student.movedim(1, -1))
        return torch.mean(1 - F.cosine_similarity(guess, teacher.movedim(1, -1), dim=-1))
