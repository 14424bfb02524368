"""Relational distillation: the angles between samples stay as the teacher sees them."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss

ONE_PLACE = 1e-14
"""Squared distance, in shares of the squared norms, below which float32 can't tell two samples
apart: there is no direction from one to the other."""


@LOSSES.register(paper="https://arxiv.org/abs/1904.05068")
class RKDAngle(FeatureLoss):
    """Huber of cos(angle at j between i and k), the mean over triplets of different samples.

    Park et al. 2019, equations 9 and 10. Features are flattened and may differ in size; if no
    layer is named, logits are compared. Fewer than three samples have no angle: zero. Two identical
    samples have no direction: their cosines are 0.
    """

    accepts_outputs = True

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
    """(B, ...) -> (B, B, B), at [j, i, k] the cosine of the angle at j.

    By the law of cosines from all squared distances, so that no (B, B, D) edges are made. Squared
    distances come from a Gram matrix, and both differences cancel digits: float64 keeps float32's.
    """
    flat = features.flatten(1).double()
    flat = flat - flat.detach().mean(0)  # distances stay, and less cancels
    gram = flat @ flat.mT
    norms = gram.diagonal().unsqueeze(1) + gram.diagonal()
    squares = norms - 2 * gram
    alike = squares <= ONE_PLACE * norms
    inverse = squares.masked_fill(alike, 1.0).rsqrt().masked_fill(alike, 0.0).to(features.dtype)
    products = (squares.unsqueeze(2) + squares.unsqueeze(1) - squares).to(features.dtype)
    return products * inverse.unsqueeze(2) * (inverse.unsqueeze(1) / 2)
