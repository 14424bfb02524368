"""Boxes (N, 4) as centre x, centre y, width, height, and how they overlap."""

import torch
from torch import Tensor


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair: (N, 4), (M, 4) -> (N, M)."""
    low = torch.maximum(_low(first)[:, None], _low(second)[None])
    high = torch.minimum(_high(first)[:, None], _high(second)[None])
    shared = (high - low).clamp(min=0).prod(2)
    union = first[:, None, 2:].prod(2) + second[None, :, 2:].prod(2) - shared
    return shared / union.clamp(min=1e-12)


def _low(boxes: Tensor) -> Tensor:
    return boxes[:, :2] - boxes[:, 2:] / 2


def _high(boxes: Tensor) -> Tensor:
    return boxes[:, :2] + boxes[:, 2:] / 2


def suppressed(
    boxes: Tensor, sure: Tensor, names: Tensor, confidence: float, overlap: float
) -> Tensor:
    """Positions of the boxes that stay, the surest first: those surer than `confidence` that no
    surer one of their class covers by `overlap` or more."""
    order = torch.argsort(sure, descending=True, stable=True)
    order = order[sure[order] > confidence]
    covered = overlaps(boxes[order], boxes[order]) >= overlap
    covered &= names[order][:, None] == names[order]
    kept: list[int] = []
    for place in range(len(order)):
        if not any(bool(covered[place, other]) for other in kept):
            kept.append(place)
    return order[kept]
