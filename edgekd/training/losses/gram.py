"""Gram matrices: which channels are active together, wherever that is."""

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape
from edgekd.training.losses._shapes import Layout, channels_first, refuse_unlike, widths


@LOSSES.register(paper="https://arxiv.org/abs/1508.06576")
class Gram(FeatureLoss):
    """(G_s - G_t)^2 with G = F F^T / positions, (C, C) a sample; mean over batch and elements.

    Gatys et al. 2015, equations 3 and 4. Sizes may differ, channel counts may not.
    """

    def __init__(self, layout: Layout = "auto") -> None:
        super().__init__()
        self.layout: Layout = layout

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (2, 3))
        mine, theirs = widths(student, teacher, self.layout)
        if mine != theirs:
            raise ValueError(f"needs as many channels on both sides, found {mine} and {theirs}")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return torch.mean((self._gram(student) - self._gram(teacher)) ** 2)

    def _gram(self, features: Tensor) -> Tensor:
        flat = channels_first(features, self.layout).flatten(2)
        return flat @ flat.mT / flat.shape[2]
