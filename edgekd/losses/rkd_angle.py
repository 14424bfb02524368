"""Relational distillation: the angles between samples stay as the teacher sees them."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.losses import FeatureLoss
from edgekd.registry import LOSSES


@LOSSES.register(paper="https://arxiv.org/abs/1904.05068")
class RKDAngle(FeatureLoss):
    """Huber of cos(angle at j between i and k), the mean over triplets of different samples.

    Park et al. 2019, equations 9 and 10. Features are flattened and may differ in size; without a
    layer, logits are compared. Fewer than three samples have no angle: zero.
    """

    outputs_will_do = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        count = len(student)
        if count < 3:
            return 0.0 * student.sum()
        apart = F.smooth_l1_loss(_cosines(student), _cosines(teacher), reduction="none")
        # Where j is one of i and k there is no edge and both cosines are 0; i must not be k either.
        total = apart.sum() - apart.diagonal(dim1=1, dim2=2).sum()
        return total / (count * (count - 1) * (count - 2))


def _cosines(features: Tensor) -> Tensor:
    """(B, ...) -> (B, B, B), at [j, i, k] the cosine of the angle at j."""
    flat = features.flatten(1)
    edges = F.normalize(flat.unsqueeze(0) - flat.unsqueeze(1), dim=2)
    return edges @ edges.mT
