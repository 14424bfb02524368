"""Pair-wise distillation: which places of an image look alike."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape, above_zero
from edgekd.training.losses._shapes import pooled


@LOSSES.register(paper="https://arxiv.org/abs/1903.04197")
class SegmentationPairs(FeatureLoss):
    """(a_s - a_t)^2, a_ij = cos(f_i, f_j) of two places of one image; mean over batch and pairs.

    Liu et al. 2019, equations 3 and 4: features (C, H, W) are averaged over `patch` x `patch` cells
    first, so that one node stands for a patch. Channel counts need not agree.
    """

    def __init__(self, patch: int = 2) -> None:
        above_zero(patch=patch)
        super().__init__()
        self.patch = patch

    def prepare(self, student: Shape, teacher: Shape) -> None:
        if len(student) != 3 or len(teacher) != 3:
            raise ValueError(f"needs maps (C, H, W), found {student} and {teacher}")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        sizes = zip(student.shape[2:], teacher.shape[2:], strict=True)
        size = [max(1, min(a, b) // self.patch) for a, b in sizes]
        return ((_alike(pooled(student, size)) - _alike(pooled(teacher, size))) ** 2).mean()


def _alike(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, H W)."""
    nodes = F.normalize(features.flatten(2), dim=1)
    return nodes.mT @ nodes
