"""Strings of digits as images, without saying where each digit is."""

import numpy as np
import torch

from edgekd.data._composed import digits_of, inked
from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks.ctc import CTC


@SETS.register(paper="composed of scikit-learn's digits")
def digit_strings(
    train: int = 1500, test: int = 200, most: int = 4, width: int = 40, seed: int = 0
) -> Source:
    """Images (1, 8, width) of one to `most` digits at uneven distances: CTC, 10 digits and the
    blank."""
    if most < 1 or width < 10 * most:
        raise ValueError(f"{most} digits don't fit a width of {width}: allow 10 pixels each")
    parts = _part("train", train, most, width, seed), _part("test", test, most, width, seed)
    return Source(*parts, labels=("blank", *(str(digit) for digit in range(10))))


def _part(part: str, count: int, most: int, width: int, seed: int) -> Samples:
    digits, labels = digits_of(part)
    random = np.random.default_rng([seed, part == "test"])
    images = random.uniform(0, 0.1, (count, 8, width)).astype(np.float32)
    targets = np.full((count, most), -1, np.int64)
    for number in range(count):
        chosen = random.integers(0, len(digits), int(random.integers(1, most + 1)))
        inks = [inked(digits[index]) for index in chosen]
        spare = width - sum(ink.shape[1] + 1 for ink in inks)
        gaps = np.sort(random.integers(0, spare + 1, len(inks)))
        left = 0
        for ink, gap, before in zip(inks, gaps, [0, *gaps], strict=False):
            left += int(gap - before)
            place = images[number, : ink.shape[0], left : left + ink.shape[1]]
            np.maximum(place, ink, out=place)
            left += ink.shape[1] + 1
        targets[number, : len(chosen)] = labels[chosen] + 1
    x = torch.from_numpy(images).unsqueeze(1)
    return Samples(x, torch.from_numpy(targets), task=CTC())
