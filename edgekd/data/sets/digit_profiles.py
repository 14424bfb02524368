"""Digits in two views: the image, which the teacher sees, and four profiles of it."""

import numpy as np
import torch
from torch import Tensor

from edgekd.data._composed import digits_of
from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source


@SETS.register(paper="Gupta, Hoffman, Malik 2016, cross modal distillation")
def digit_profiles() -> Source:
    """Two signals (2, 15) of scikit-learn's digits, the ink along columns and rows and along the
    falling diagonals; `paired` are the images (1, 8, 8) that they are projections of."""
    return Source(_part("train"), _part("test"), labels=tuple(str(digit) for digit in range(10)))


def _part(part: str) -> Samples:
    images, labels = digits_of(part)
    x = torch.from_numpy(images)
    return Samples(profiles(x), torch.from_numpy(labels), paired=x.unsqueeze(1))


def profiles(images: Tensor) -> Tensor:
    """(N, 8, 8) -> (N, 2, 15): the sums of 8 columns and of the first 7 rows, then those of the
    falling diagonals, all over 8."""
    count, size, _ = images.shape
    offsets = np.arange(size)[:, None] - np.arange(size) + size - 1
    which = torch.from_numpy(offsets).flatten().expand(count, -1)
    falling = torch.zeros(count, 2 * size - 1).scatter_add(1, which, images.flatten(1))
    sums = torch.cat([images.sum(1), images.sum(2)[:, : size - 1]], 1)
    return torch.stack([sums, falling], 1) / size
