"""Noisy time series of three classes."""

import numpy as np
import torch

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source

LENGTH = 21


@SETS.register(paper="Breiman, Friedman, Olshen, Stone 1984, CART, section 2.6.2")
def waveform(train: int = 1200, test: int = 400, seed: int = 0) -> Source:
    """Series (1, 21): a random mixture of two of three triangular waves, plus unit noise. The best
    possible accuracy is about 86 %."""
    train_part = _part(train, np.random.default_rng([seed, 0]))
    test_part = _part(test, np.random.default_rng([seed, 1]))
    return Source(train_part, test_part, labels=("1 and 2", "1 and 3", "2 and 3"))


def _part(count: int, random: np.random.Generator) -> Samples:
    time = np.arange(1, LENGTH + 1)
    waves = np.stack([np.maximum(6 - abs(time - peak), 0.0) for peak in (11, 15, 7)])
    pairs = np.array([(0, 1), (0, 2), (1, 2)])
    y = random.integers(0, 3, count)
    share = random.random((count, 1))
    first, second = waves[pairs[y, 0]], waves[pairs[y, 1]]
    x = share * first + (1 - share) * second + random.normal(size=(count, LENGTH))
    return Samples(torch.from_numpy(x.astype(np.float32)).unsqueeze(1), torch.from_numpy(y))
