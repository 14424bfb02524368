"""Knowledge review: what deep layers know is fused into shallow ones before they are compared."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.losses import DepthsLoss, Shape, above_zero
from edgekd.registry import LOSSES

LEVELS = (4, 2, 1)


@LOSSES.register(paper="https://arxiv.org/abs/2104.09044")
class Review(DepthsLoss):
    """sum over the layers of HCL(fused F_s, F_t), the mean over the batch.

    Chen et al. 2021, equations 4 and 5. From the deepest layer up, attention based fusion (ABF)
    adds the fused features of the layer below, resized and weighted by two learned attention maps,
    to the student's own. The hierarchical context loss (HCL) is the squared error of the maps and
    of their averages on 4 x 4, 2 x 2 and 1 x 1 cells, by weights 1, 1/2, 1/4, 1/8 over their sum.
    Fusion has `width` channels, at most 512 and as many as the deepest layer if none is given. Name
    the layers from shallow to deep. Zero where the fused features equal the teacher's.
    """

    def __init__(self, width: int | None = None) -> None:
        above_zero(width=1 if width is None else width)
        super().__init__()
        self.width = width
        self.fusions = nn.ModuleList()

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        for mine, theirs in zip(student, teacher, strict=True):
            if len(mine) != 3 or len(theirs) != 3:
                raise ValueError(f"needs maps (C, H, W), found {mine} and {theirs}")
        deepest = len(student) - 1
        width = self.width or min(512, student[-1][0])
        self.fusions = nn.ModuleList(
            _Fusion(mine[0], width, theirs[0], fuse=number < deepest)
            for number, (mine, theirs) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        total, below = student[0].new_zeros(()), None
        for number in reversed(range(len(student))):
            size = teacher[number].shape[2:]
            fused, below = self.fusions[number](student[number], below, size)
            total = total + hierarchical_context(fused, teacher[number])
        return total


class _Fusion(nn.Module):
    """Attention based fusion of one layer's features with those of the next deeper one."""

    def __init__(self, inputs: int, width: int, outputs: int, fuse: bool) -> None:
        super().__init__()
        self.inward = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
        self.outward = nn.Sequential(
            nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.attention = nn.Conv2d(2 * width, 2, 1) if fuse else None

    def forward(
        self, features: Tensor, below: Tensor | None, size: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """What is compared (B, outputs, *size), and what the next shallower layer takes over."""
        mixed: Tensor = self.inward(features)
        if self.attention is not None and below is not None:
            below = F.interpolate(below, mixed.shape[2:], mode="nearest")
            shares = torch.sigmoid(self.attention(torch.cat([mixed, below], dim=1)))
            mixed = mixed * shares[:, :1] + below * shares[:, 1:]
        if mixed.shape[2:] != size:
            mixed = F.interpolate(mixed, size, mode="nearest")
        return self.outward(mixed), mixed


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Maps (B, C, H, W) of one shape -> the weighted squared error on all levels."""
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for level in LEVELS:
        if level >= student.shape[2]:
            continue
        weight /= 2
        size = (level, level)
        mine, theirs = (F.adaptive_avg_pool2d(each, size) for each in (student, teacher))
        total = total + weight * F.mse_loss(mine, theirs)
        weights += weight
    return total / weights
