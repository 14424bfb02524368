"""Boxes (N, 4) as centre x, centre y, width, height, and how they overlap."""

import torch
from torch import Tensor

from edgekd.data.tasks import NO_LABEL
from edgekd.errors import EdgekdError, InputError


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


def f1(found: Tensor, truth: Tensor) -> float:
    """2 matches / (boxes found + targets) of rows (class, x, y, width, height), class -1 for none:
    each box takes the free target of its class that it overlaps most, by half at least."""
    found, truth = found[found[:, 0] >= 0], truth[truth[:, 0] >= 0]
    if not len(found) and not len(truth):
        return 1.0
    if not len(found) or not len(truth):
        return 0.0
    shares = overlaps(found[:, 1:], truth[:, 1:])
    shares[found[:, :1] != truth[:, 0]] = 0.0
    matches = 0
    for row in shares:
        best = int(row.argmax())
        if row[best] >= 0.5:
            matches += 1
            shares[:, best] = 0.0
    return 2 * matches / (len(found) + len(truth))


def target_faults(y: Tensor, classes: int, where: str) -> list[EdgekdError]:
    """Targets that aren't (N, M, 5), classes out of range, boxes outside the image."""
    if y.ndim != 3 or y.shape[2] != 5 or not y.is_floating_point():
        message = f"targets of shape {tuple(y.shape)} in {y.dtype}"
        wanted = "(N, M, 5): class, x, y, width, height"
        return [InputError(message, where=where, allowed=wanted)]
    there = y[..., 0] != NO_LABEL
    names = y[..., 0][there]
    faults: list[EdgekdError] = []
    if bool(((names < 0) | (names >= classes) | (names != names.round())).any()):
        message = "the class of a box is out of range"
        faults.append(InputError(message, where=where, allowed=f"-1 or 0 to {classes - 1}"))
    sizes = y[..., 1:][there]
    if bool(((sizes < 0) | (sizes > 1) | ~sizes.isfinite()).any()):
        message = "a box lies outside its image"
        hint = "x, y, width and height are fractions of the image size"
        faults.append(InputError(message, where=where, allowed="0 to 1", hint=hint))
    return faults
