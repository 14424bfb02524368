"""Percentile intervals by resampling."""

import numpy as np
from torch import Tensor


def interval(scores: Tensor, draws: int = 1000) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of the means of as many values, drawn with replacement."""
    values, random = scores.double().numpy(), np.random.default_rng(0)
    count = len(values)
    means = [values[random.integers(0, count, count)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
