"""Maximum mean discrepancy between the channels of two feature maps."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(B, M, P) and (B, N, P) -> (B, M, N), a value for each pair of vectors of one sample."""


def linear(first: Tensor, second: Tensor) -> Tensor:
    """x . y"""
    return first @ second.mT


def polynomial(first: Tensor, second: Tensor) -> Tensor:
    """(x . y)^2"""
    return (first @ second.mT) ** 2


def gaussian_for(student: Tensor, teacher: Tensor) -> Kernel:
    """exp(-|x - y|^2 / (2 s^2)), s^2 the mean squared distance of student and teacher vectors."""
    with torch.no_grad():
        spread = _squared(student, teacher).mean((1, 2), keepdim=True).clamp_min(1e-12)

    def kernel(first: Tensor, second: Tensor) -> Tensor:
        return torch.exp(-_squared(first, second) / (2 * spread))

    return kernel


def discrepancy(student: Tensor, teacher: Tensor, kernel: Kernel) -> Tensor:
    """MMD^2 of the vectors (B, C, P) on each side, the mean over the batch."""
    within = kernel(teacher, teacher).mean((1, 2)) + kernel(student, student).mean((1, 2))
    return (within - 2 * kernel(student, teacher).mean((1, 2))).mean()


def unit_channels(features: Tensor) -> Tensor:
    """(B, C, ...) -> (B, C, positions), each channel's map of norm one."""
    return F.normalize(features.flatten(2), dim=2)


def _squared(first: Tensor, second: Tensor) -> Tensor:
    # The expansion |x|^2 + |y|^2 - 2xy has a gradient at zero, where cdist has none.
    lengths = (first**2).sum(2, keepdim=True) + (second**2).sum(2).unsqueeze(1)
    return (lengths - 2 * first @ second.mT).clamp_min(0)
