"""Relational distillation: samples that the teacher holds apart stay apart."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss


@LOSSES.register(paper="https://arxiv.org/abs/1904.05068")
class RKDDistance(FeatureLoss):
    """Huber of |x_i - x_j| / mean, student against teacher, the mean over all pairs.

    Park et al. 2019, equations 6 to 8. Features are flattened and may differ in size; if no
    layer is named, logits are compared. A batch of one has no pair: zero.
    """

    accepts_outputs = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if len(student) < 2:
            return 0.0 * student.sum()
        return F.smooth_l1_loss(_distances(student), _distances(teacher))


def _distances(features: Tensor) -> Tensor:
    """(B, ...) -> the distance of each pair i < j over their mean."""
    distances = F.pdist(features.flatten(1))
    return distances / distances.mean().clamp_min(1e-12)
