"""Bootstrap intervals: how sure a mean is."""

import numpy as np

DRAWS = 1000


def means(values: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """(draws,) means of as many values as there are in (N,), drawn with replacement.

    Of values that are all 0 or 1 such a sum is binomial, so that is drawn from.
    """
    random, count = np.random.default_rng(0), len(values)
    if np.isin(values, (0, 1)).all():
        return random.binomial(count, int(values.sum()) / count, draws) / count
    return np.array([values[random.integers(0, count, count)].mean() for _ in range(draws)])


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of what was drawn: a percentile interval at 95 %."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
