"""Knowledge review: what deep layers know is fused into shallow ones before they are compared."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, Shape, above_zero

LEVELS = (4, 2, 1)


@LOSSES.register(paper="https://arxiv.org/abs/2104.09044")
class Review(DepthsLoss):
    """sum over the layers of HCL(fused F_s, F_t), the mean over the batch.

    Chen et al. 2021, equations 4 and 5. From the deepest layer up, attention based fusion (ABF)
    adds the fused features of the layer below, resized and weighted by two learned attention maps,
    to the student's own. The hierarchical context loss (HCL) is the squared error of the maps and
    of their averages on 4 x 4, 2 x 2 and 1 x 1 cells, by weights 1, 1/2, 1/4, 1/8 over their sum.
    Fusion has `width` channels; if none is given, half as many as the deepest layer, at most 512.
    The authors' code takes all of them: a step of small networks then costs 2.5 times plain `kl`'s.
    Name the layers from shallow to deep. Zero where the fused features equal the teacher's.
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
        width = self.width or min(512, max(1, student[-1][0] // 2))
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
        """What is compared (B, outputs, *size), and what the next shallower layer takes over.

        Channels stand last in memory meanwhile: few of them make small convolutions slow otherwise.
        """
        mixed: Tensor = self.inward(features.contiguous(memory_format=torch.channels_last))
        if self.attention is not None and below is not None:
            shares = torch.sigmoid(self._scores(self.attention, mixed, below))
            below = F.interpolate(below, mixed.shape[2:], mode="nearest")
            mixed = torch.addcmul(mixed * shares[:, :1], below, shares[:, 1:])
        if mixed.shape[2:] != size:
            mixed = F.interpolate(mixed, size, mode="nearest")
        return self.outward(mixed).contiguous(), mixed

    @staticmethod
    def _scores(attention: nn.Conv2d, mixed: Tensor, below: Tensor) -> Tensor:
        """The 1 x 1 convolution of both, (B, 2, H, W), of `below` before it is enlarged."""
        own, deeper = attention.weight.flatten(1).chunk(2, dim=1)
        low = F.linear(below.movedim(1, -1), deeper).movedim(-1, 1)
        high = F.linear(mixed.movedim(1, -1), own, attention.bias).movedim(-1, 1)
        return high + F.interpolate(low, mixed.shape[2:], mode="nearest")


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Maps (B, C, H, W) of one shape -> the weighted squared error on all levels.

    Averages are linear, so those of the difference are taken, of all levels in one product.
    """
    error = F.mse_loss(student, teacher)
    averages, shares = _pyramid(student.shape[2], student.shape[3])
    if len(shares):
        cells = (student - teacher).flatten(2) @ averages.to(student)
        error = error + (cells.square() @ shares.to(student)).mean()
    return error / (2 - 0.5 ** len(_levels(student.shape[2])))  # 1 + 1/2 + 1/4 and so on


def _levels(height: int) -> list[int]:
    return [level for level in LEVELS if level < height]


@lru_cache(maxsize=64)
def _pyramid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """(H W, cells), what averages a flattened map on the cells of all levels, and each cell's share
    of its level's weight (cells,)."""
    averages, shares = [torch.empty(height * width, 0)], [torch.empty(0)]
    for number, level in enumerate(_levels(height), 1):
        down, across = (F.adaptive_avg_pool1d(torch.eye(n), level) for n in (height, width))
        averages.append(torch.einsum("hl,wm->hwlm", down, across).flatten(2).flatten(0, 1))
        shares.append(torch.full((level * level,), 0.5**number / level**2))
    return torch.cat(averages, dim=1), torch.cat(shares)
