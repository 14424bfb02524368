"""Bootstrap intervals: how certain a mean is."""

import numpy as np

DRAWS = 1000


def means(values: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """(draws,) means of N values drawn with replacement from values (N,).

    If all values are 0 or 1, the sum is binomial and is drawn directly.
    """
    random, count = np.random.default_rng(0), len(values)
    if np.isin(values, (0, 1)).all():
        return random.binomial(count, int(values.sum()) / count, draws) / count
    return np.array([values[random.integers(0, count, count)].mean() for _ in range(draws)])


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of the draws: a percentile interval at 95 %."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
