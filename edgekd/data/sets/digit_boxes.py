"""Scenes of digits with their boxes."""

import numpy as np
import torch

from edgekd.data._composed import scenes
from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks.detection import Detection

MOST = 3


@SETS.register(paper="composed of scikit-learn's digits")
def digit_boxes(train: int = 1200, test: int = 200, size: int = 32, seed: int = 0) -> Source:
    """Scenes (1, size, size) of one to three digits with exact boxes: detection, 10 classes."""
    parts = _part("train", train, size, seed), _part("test", test, size, seed)
    return Source(*parts, labels=tuple(str(digit) for digit in range(10)))


def _part(part: str, count: int, size: int, seed: int) -> Samples:
    images, targets = [], np.full((count, MOST, 5), -1.0, np.float32)
    for number, (canvas, pasted) in enumerate(scenes(part, count, size, 1, MOST, seed)):
        images.append(canvas)
        for place, pasted_digit in enumerate(pasted):
            height, width = pasted_digit.ink.shape
            centre = (pasted_digit.left + width / 2) / size, (pasted_digit.top + height / 2) / size
            targets[number, place] = (pasted_digit.digit, *centre, width / size, height / size)
    x = torch.from_numpy(np.stack(images)).unsqueeze(1)
    return Samples(x, torch.from_numpy(targets), task=Detection())
