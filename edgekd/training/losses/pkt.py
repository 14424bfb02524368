"""Probabilistic knowledge transfer: each sample's neighbours, as a distribution."""

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss


@LOSSES.register(paper="https://arxiv.org/abs/1803.10837")
class PKT(FeatureLoss):
    """KL(p || q) of the conditional neighbour probabilities, the mean over the samples.

    Passalis and Tefas 2018, equations 2 to 6 with the cosine kernel K = (cos + 1) / 2: p(j | i) =
    K_ij over its sum for all j other than i. Sizes may differ; without a layer, logits are
    compared. A batch of one has no neighbours: zero.
    """

    accepts_outputs = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if len(student) < 2:
            return 0.0 * student.sum()
        mine, theirs = _neighbours(student), _neighbours(teacher)
        return (theirs * (theirs.log() - mine.log())).sum(1).mean()


def _neighbours(features: Tensor) -> Tensor:
    """(B, ...) -> (B, B - 1) conditional probabilities, each row's own sample left out."""
    flat = F.normalize(features.flatten(1), dim=1)
    count = len(flat)
    others = ~torch.eye(count, dtype=torch.bool, device=flat.device)
    kernel = ((flat @ flat.T + 1) / 2)[others].view(count, count - 1).clamp_min(1e-7)
    return kernel / kernel.sum(1, keepdim=True)
