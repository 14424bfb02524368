"""Candidates and non-maximum suppression in PyTorch, as files may do it by themselves."""

from typing import Any

import torch
from torch import Tensor

from edgekd.data.tasks import NO_LABEL
from edgekd.data.tasks._boxes import suppressed
from edgekd.errors import InputError
from edgekd.values.box_search import BoxSearch


def boxes_found(search: BoxSearch, outputs: Any) -> Tensor:
    """(B, most, 6) float32: class, x, y, width, height and score, the surest first; class -1 and
    zeros where there are no more. Fewer rows where there are fewer places."""
    boxes, sure, names = (each.detach().cpu() for each in search.candidates(outputs))
    _check(boxes, sure, names)
    rows = torch.zeros(len(boxes), min(search.most, boxes.shape[1]), 6)
    rows[..., 0] = NO_LABEL
    for image in range(len(boxes)):
        part = boxes[image], sure[image], names[image]
        kept = suppressed(*part, search.confidence, search.overlap)[: rows.shape[1]]
        scored = (names[image, kept, None], boxes[image, kept], sure[image, kept, None])
        rows[image, : len(kept)] = torch.cat([each.float() for each in scored], 1)
    return rows


def _check(boxes: Tensor, sure: Tensor, names: Tensor) -> None:
    """`InputError` for candidates of other shapes or types."""
    good = boxes.ndim == 3 and boxes.shape[2] == 4 and not names.is_floating_point()
    if not good or sure.shape != boxes.shape[:2] or names.shape != sure.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in (boxes, sure, names))
        raise InputError(
            f"the candidates have the shapes {shapes}, classes of {names.dtype}",
            where="data.task: candidates",
            allowed="boxes (B, n, 4), scores (B, n) and integer classes (B, n)",
        )
