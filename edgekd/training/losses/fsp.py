"""Flow of the solution procedure: how features change from one depth to the next."""

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, Shape


@LOSSES.register(paper="https://doi.org/10.1109/CVPR.2017.754")
class FSP(DepthsLoss):
    """(G_s - G_t)^2 with G = F_1 F_2^T / positions of two depths; mean over batch and elements.

    Yim et al. 2017, equations 1 and 2, each neighbouring pair of the named layers weighted alike.
    The larger map of a pair is max-pooled to the smaller; channel counts must agree on both sides.
    """

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        for mine, theirs in zip(student, teacher, strict=True):
            if len(mine) != 3 or len(theirs) != 3:
                raise ValueError(f"needs maps (C, H, W), found {mine} and {theirs}")
            if mine[0] != theirs[0]:
                raise ValueError(
                    f"needs as many channels on both sides, found {mine[0]} and {theirs[0]}"
                )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        pairs = range(len(student) - 1)
        losses = [
            torch.mean((_flow(*student[i : i + 2]) - _flow(*teacher[i : i + 2])) ** 2)
            for i in pairs
        ]
        return torch.stack(losses).mean()


def _flow(first: Tensor, second: Tensor) -> Tensor:
    """(B, C1, H, W) and (B, C2, h, w) -> (B, C1, C2)."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    first, second = F.adaptive_max_pool2d(first, size), F.adaptive_max_pool2d(second, size)
    return first.flatten(2) @ second.flatten(2).mT / (size[0] * size[1])
