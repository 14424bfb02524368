"""Attention weights and relations between tokens, as distributions."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.training.losses import Shape

TINY = 1e-8


def relation_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of probabilities (..., L), the mean over all rows."""
    logs, theirs = student.clamp_min(TINY).log(), teacher.clamp_min(TINY).log()
    return (teacher * (theirs - logs)).sum(-1).mean()


def value_relations(values: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, heads, L, L): softmax(V V^T / sqrt(d)) of each head's share d of D."""
    split = values.view(*values.shape[:2], heads, -1).transpose(1, 2)
    return F.softmax(split @ split.mT / split.shape[3] ** 0.5, dim=3)


def is_map(shape: Shape) -> bool:
    """Whether a layer's output for one sample may be attention weights (heads, L, L)."""
    return len(shape) == 3 and shape[1] == shape[2]
