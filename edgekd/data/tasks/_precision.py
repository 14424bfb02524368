"""Average precision of boxes as COCO defines it (https://arxiv.org/abs/1405.0312, all areas)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.data.tasks._boxes import overlaps

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's ten thresholds, 0.50 to 0.95."""

RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Boxes of a class that count in an image: the surest ones."""


@dataclass(frozen=True, eq=False)
class Matches:
    """What decides average precision. Of each box that was found, the surest first: its class, its
    image, and whether it hits a target at each IoU (D, T); of each target: its class and image."""

    kinds: NDArray[np.int64]
    images: NDArray[np.int64]
    hits: NDArray[np.bool_]
    target_kinds: NDArray[np.int64]
    target_images: NDArray[np.int64]


def matches_of(found: Sequence[Tensor], y: Tensor, ious: Sequence[float]) -> Matches:
    """Match the boxes of each image (n, 6): class, x, y, width, height, score, with its targets
    (N, M, 5), class -1 for none. The surest box takes the free target of its class that it overlaps
    most, at each IoU by itself."""
    parts: list[tuple[NDArray[np.float64], NDArray[np.bool_], int]] = []
    wanted = [rows[rows[:, 0] >= 0].double() for rows in y]
    for image, (boxes, targets) in enumerate(zip(found, wanted, strict=True)):
        boxes = boxes.double()
        for kind in np.unique(boxes[:, 0].numpy()).tolist():
            same = boxes[boxes[:, 0] == kind]
            same = same[torch.argsort(same[:, 5], descending=True, stable=True)][:MOST]
            shares = overlaps(same[:, 1:5], targets[targets[:, 0] == kind][:, 1:])
            parts.append((same.numpy(), _hits(shares.numpy(), np.array(ious)), image))
    count = len(ious)
    rows = np.concatenate([part[0] for part in parts]) if parts else np.zeros((0, 6))
    hits = np.concatenate([part[1] for part in parts]) if parts else np.zeros((0, count), bool)
    images = np.repeat([part[2] for part in parts], [len(part[0]) for part in parts])
    order = np.argsort(-rows[:, 5], kind="stable")
    return Matches(
        kinds=rows[order, 0].astype(np.int64),
        images=images[order].astype(np.int64),
        hits=hits[order],
        target_kinds=torch.cat(wanted)[:, 0].long().numpy(),
        target_images=np.repeat(np.arange(len(wanted)), [len(rows) for rows in wanted]),
    )


def _hits(shares: NDArray[np.float64], ious: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(D, T) for overlaps (D, G) with the targets, the surest box first."""
    hits = np.zeros((len(shares), len(ious)), bool)
    free = np.ones((len(ious), shares.shape[1]), bool)
    for box, row in enumerate(shares):
        if not len(row) or row.max() < ious.min():
            continue
        open_to = np.where(free & (row >= ious[:, None]), row, -1.0)
        best = open_to.shape[1] - 1 - open_to[:, ::-1].argmax(1)  # of equals the last, as COCO does
        hits[box] = open_to[np.arange(len(ious)), best] >= 0
        free[np.flatnonzero(hits[box]), best[hits[box]]] = False
    return hits


def mean_average_precision(matches: Matches, weights: NDArray[np.float64]) -> float:
    """The mean over classes and IoUs of the precision at 101 recalls, where each image counts by
    its weight (N,), as often as it was drawn. Without any target 1 if nothing was found, else 0."""
    target_weights = weights[matches.target_images]
    present = np.unique(matches.target_kinds[target_weights > 0])
    if not len(present):
        return float(not weights[matches.images].any())
    means = []
    for kind in present:
        chosen = matches.kinds == kind
        total = float(target_weights[matches.target_kinds == kind].sum())
        means.append(_average(matches.hits[chosen], weights[matches.images[chosen]], total))
    return float(np.mean(means))


def _average(
    hits: NDArray[np.bool_], weights: NDArray[np.float64], targets: float
) -> NDArray[np.float64]:
    """(T,) average precision of one class."""
    true = np.cumsum(hits * weights[:, None], 0)
    precision = true / np.maximum(np.cumsum(weights), 1e-12)[:, None]
    recall = true / targets
    best = np.maximum.accumulate(precision[::-1], 0)[::-1]
    averages = np.zeros(hits.shape[1])
    for number in range(hits.shape[1]):
        places = np.searchsorted(recall[:, number], RECALLS, side="left")
        reached = places[places < len(best)]
        averages[number] = best[reached, number].sum() / len(RECALLS)
    return averages
