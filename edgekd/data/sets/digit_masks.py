"""Scenes of digits with the class of every pixel."""

import numpy as np
import torch

from edgekd.data._composed import scenes
from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks.segmentation import Segmentation

INK = 0.3


@SETS.register(paper="composed of scikit-learn's digits")
def digit_masks(train: int = 800, test: int = 200, size: int = 24, seed: int = 0) -> Source:
    """Scenes (1, size, size) of one or two digits: segmentation, 10 digits and the background."""
    parts = _part("train", train, size, seed), _part("test", test, size, seed)
    return Source(*parts, labels=("background", *(str(digit) for digit in range(10))))


def _part(part: str, count: int, size: int, seed: int) -> Samples:
    images, masks = [], np.zeros((count, size, size), np.int64)
    for number, (canvas, pasted) in enumerate(scenes(part, count, size, 1, 2, seed)):
        images.append(canvas)
        for pasted_digit in pasted:
            place = masks[
                number,
                pasted_digit.top : pasted_digit.bottom,
                pasted_digit.left : pasted_digit.right,
            ]
            place[pasted_digit.ink > INK] = pasted_digit.digit + 1
    x = torch.from_numpy(np.stack(images)).unsqueeze(1)
    return Samples(x, torch.from_numpy(masks), task=Segmentation())
