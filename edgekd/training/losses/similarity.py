"""Similarity-preserving distillation: samples alike for the teacher are alike for the student."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss


@LOSSES.register(paper="https://arxiv.org/abs/1907.09682")
class Similarity(FeatureLoss):
    """|G_s - G_t|_F^2 / B^2, G = Q Q^T with each row of norm one, Q the flattened features.

    Tung and Mori 2019, equations 1 to 4. Sizes may differ; if no layer is named, logits are
    compared.
    """

    accepts_outputs = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return ((_similarities(student) - _similarities(teacher)) ** 2).mean()


def _similarities(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)
