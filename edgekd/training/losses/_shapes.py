"""Bringing two feature maps to one layout and one size."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from edgekd.training.losses import Shape

Layout = Literal["auto", "channels-first", "channels-last"]
"""The position of the channels. auto: first in (C, H, W), last in (L, D)."""


def channels_first(features: Tensor, layout: Layout) -> Tensor:
    """(B, ..., C) -> (B, C, ...) where the layout has channels last; else as it is."""
    last = layout == "channels-last" or (layout == "auto" and features.ndim == 3)
    return features.movedim(-1, 1) if last else features


def widths(student: Shape, teacher: Shape, layout: Layout) -> tuple[int, int]:
    """How many channels each side has, from one sample's shapes."""
    return _width(student, layout), _width(teacher, layout)


def _width(shape: Shape, layout: Layout) -> int:
    last = layout == "channels-last" or (layout == "auto" and len(shape) == 2)
    return shape[-1 if last else 0]


def aligned(student: Tensor, teacher: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Both as (B, C, ...), pooled to the smaller of the two sizes in each direction."""
    student, teacher = channels_first(student, layout), channels_first(teacher, layout)
    size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return pooled(student, size), pooled(teacher, size)


def pooled(features: Tensor, size: list[int]) -> Tensor:
    """(B, C, ...) adaptively averaged to a size, untouched where it has that size already."""
    if list(features.shape[2:]) == size:
        return features
    if len(size) == 1:
        return F.adaptive_avg_pool1d(features, size[0])
    return F.adaptive_avg_pool2d(features, (size[0], size[1]))


def refuse_unlike(student: Shape, teacher: Shape, dimensions: tuple[int, ...]) -> None:
    """`ValueError` unless both have the same number of dimensions, and one that is allowed."""
    if len(student) != len(teacher) or len(student) not in dimensions:
        raise ValueError(
            f"student features {student} and teacher features {teacher} can't be matched"
        )
