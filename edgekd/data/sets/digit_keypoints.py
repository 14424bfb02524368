"""Digits somewhere in an image, with four places on each."""

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.data._composed import Pasted, scenes
from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks.keypoints import Keypoints

INK, STRIDE = 0.3, 2


@SETS.register(paper="composed of scikit-learn's digits")
def digit_keypoints(train: int = 800, test: int = 200, size: int = 24, seed: int = 0) -> Source:
    """Images (1, size, size) of one digit: its topmost, lowest, leftmost and rightmost ink, in
    cells of heatmaps half the size."""
    parts = _part("train", train, size, seed), _part("test", test, size, seed)
    return Source(*parts)


def _part(part: str, count: int, size: int, seed: int) -> Samples:
    images, points = [], np.zeros((count, 4, 2), np.float32)
    for number, (canvas, pasted) in enumerate(scenes(part, count, size, 1, 1, seed)):
        images.append(canvas)
        points[number] = _extremes(pasted[0])
    x = torch.from_numpy(np.stack(images)).unsqueeze(1)
    return Samples(x, torch.from_numpy(points), task=Keypoints())


def _extremes(digit: Pasted) -> NDArray[np.float64]:
    """(4, 2) x and y in cells; of several equally extreme pixels their middle."""
    rows, columns = np.nonzero(digit.ink > INK)
    chosen = (
        rows == rows.min(),
        rows == rows.max(),
        columns == columns.min(),
        columns == columns.max(),
    )
    places = [(columns[each].mean() + digit.left, rows[each].mean() + digit.top) for each in chosen]
    # A cell covers STRIDE pixels: pixel 0 and 1 lie around the centre of cell 0.
    return (np.array(places) - (STRIDE - 1) / 2) / STRIDE
