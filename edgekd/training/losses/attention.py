"""Attention transfer: look where the teacher looks."""

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape, above_zero
from edgekd.training.losses._shapes import Layout, aligned, refuse_unlike


@LOSSES.register(paper="https://arxiv.org/abs/1612.03928")
class Attention(FeatureLoss):
    """L2 distance of the normalized maps Q / |Q|, Q = sum_c |F_c|^p, the mean over the batch.

    Zagoruyko and Komodakis 2017, equation 2 (F_sum^p). Channel counts need not agree; maps of
    different sizes are pooled to the smaller one first.
    """

    def __init__(self, p: float = 2.0, layout: Layout = "auto") -> None:
        above_zero(p=p)
        super().__init__()
        self.p = p
        self.layout: Layout = layout

    def prepare(self, student: Shape, teacher: Shape) -> None:
        refuse_unlike(student, teacher, (2, 3))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = aligned(student, teacher, self.layout)
        distance: Tensor = torch.linalg.vector_norm(self._map(student) - self._map(teacher), dim=1)
        return distance.mean()

    def _map(self, features: Tensor) -> Tensor:
        """(B, C, ...) -> (B, positions) of norm one."""
        return F.normalize(features.abs().pow(self.p).sum(1).flatten(1), dim=1)
