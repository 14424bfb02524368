"""Ranges that balance clipping against rounding, searched on a histogram of the value.

All take the extremes (low, high) of the value, the number of steps of its grid and whether the grid
is symmetric around zero; all return (low, high).
"""

import torch
from torch import Tensor

from edgekd.quant.histograms import SIDE, Histogram

Range = tuple[float, float]

_SHARES = torch.linspace(1.0, 0.02, 99, dtype=torch.float64)
_ENTROPY_BINS = 2048
_ENTROPY_TRIALS = 128


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """The shortest range around zero that keeps `percentile` of the values: half of the others are
    clipped on each side, or all of them where every value has the same sign."""
    counts = histogram.counts
    below, above = float(counts[:SIDE].sum()), float(counts[SIDE:].sum())
    total = below + above + histogram.zeros
    sides = 2 if below and above else 1
    clipped = total * (1.0 - percentile / 100.0) / sides
    edges = (torch.arange(2 * SIDE + 1, dtype=torch.float64) - SIDE) * histogram.width
    counts = counts.clone()
    counts[SIDE] += histogram.zeros
    summed = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    # The last edge with at most `clipped` values below it, and the first with as few above it.
    lowest = int((summed <= clipped + 1e-9).sum()) - 1
    highest = int((summed < total - clipped - 1e-9).sum())
    return float(edges[min(lowest, SIDE)]), float(edges[max(highest, SIDE)])


def mse_range(histogram: Histogram, ends: Range, steps: int, symmetric: bool) -> Range:
    """The range whose rounding and clipping have the least squared error. Both ends shrink
    together first, then each of them alone."""
    low, high = ends
    if symmetric:
        largest = max(-low, high)
        trials = [(-largest * share, largest * share) for share in _SHARES.tolist()]
        return _least(histogram, trials, steps)
    low, high = _least(histogram, [(low * s, high * s) for s in _SHARES.tolist()], steps)
    low, high = _least(histogram, [(ends[0] * s, high) for s in _SHARES.tolist()], steps)
    return _least(histogram, [(low, ends[1] * s) for s in _SHARES.tolist()], steps)


def _least(histogram: Histogram, trials: list[Range], steps: int) -> Range:
    used = histogram.counts > 0
    counts, centers = histogram.counts[used], histogram.centers[used]
    lows, highs = torch.tensor(trials, dtype=torch.float64).unbind(1)
    rounded = on_grid(centers, lows[:, None], highs[:, None], steps)
    errors = ((rounded - centers).square() * counts).sum(1)
    return trials[int(errors.argmin())]


def on_grid(values: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Values rounded to `steps` steps between two ends, with an exact zero among them."""
    scale = ((high - low) / steps).clamp_min(torch.finfo(torch.float32).tiny)
    least = (low / scale).round()
    rounded: Tensor = (values / scale).round().maximum(least).minimum(least + steps) * scale
    return rounded


def octav_range(histogram: Histogram, ends: Range, steps: int, symmetric: bool) -> Range:
    """The clipping scalar s with the least expected squared error, by Newton's recursion.

    Sakr et al. 2022 (arXiv:2206.06501), eq. 11: s' = E[|x|; |x| > s] / (k P(0 < |x| <= s) +
    P(|x| > s)), where k s^2 is the variance of the rounding: a step of r s / `steps` has that of
    (r / steps)^2 / 12 s^2, with r = 2 for values of both signs and for symmetric grids, else 1.
    """
    sizes, counts = histogram.centers.abs(), histogram.counts
    both = symmetric or (ends[0] < 0.0 < ends[1])
    noise = ((2.0 if both else 1.0) / steps) ** 2 / 12.0
    scalar = float((sizes * counts).sum() / counts.sum().clamp_min(1.0))
    for _ in range(50):
        beyond = sizes > scalar
        weight = noise * counts[~beyond].sum() + counts[beyond].sum()
        following = float((sizes * counts)[beyond].sum() / weight)
        if following == 0.0 or abs(following - scalar) <= 1e-6 * scalar:
            break
        scalar = following
    return (-scalar if both else min(0.0, -scalar * (ends[0] < 0))), scalar * (ends[1] > 0 or both)


def entropy_range(histogram: Histogram, ends: Range, steps: int, symmetric: bool) -> Range:
    """The clipping with the least Kullback-Leibler divergence between the distribution of the
    values and that of the rounded ones (Migacz 2017, "8-bit inference with TensorRT"). Zeros, which
    every grid holds, are left out.

    The clipped values are added to the outermost bins of the one; the other has the same numbers
    spread evenly over those bins of each step that are not empty.
    """
    counts = histogram.counts.view(-1, 2 * SIDE // (2 * _ENTROPY_BINS)).sum(1)
    width, middle = histogram.width * SIDE / _ENTROPY_BINS, _ENTROPY_BINS
    most = [min(_ENTROPY_BINS, int(-(-end // width))) for end in (-ends[0], ends[1])]
    least = (steps + 1) // (2 if symmetric or min(most) else 1)
    if max(most) <= least:
        return ends
    sizes = sorted(set(torch.linspace(max(most), least, _ENTROPY_TRIALS).int().tolist()))
    best, found = float("inf"), max(most)
    for size in sizes:
        low, high = min(size, most[0]), min(size, most[1])
        if symmetric:
            low = high = size
        divergence = _divergence(counts, middle - low, middle + high, steps)
        if divergence <= best:
            best, found = divergence, size
    return -found * width, found * width


def _divergence(counts: Tensor, start: int, stop: int, steps: int) -> float:
    inside = counts[start:stop]
    expected = inside.clone()
    expected[0] += counts[:start].sum()
    expected[-1] += counts[stop:].sum()
    number = min(steps + 1, len(inside))
    places = torch.arange(len(inside)) * number // len(inside)
    sums = counts.new_zeros(number).index_add_(0, places, inside)
    filled = (inside > 0).double()
    shares = counts.new_zeros(number).index_add_(0, places, filled)
    spread = (sums / shares.clamp_min(1.0))[places] * filled
    p, q = expected / expected.sum(), spread / spread.sum().clamp_min(1e-30)
    used = p > 0
    return float((p[used] * (p[used] / q[used].clamp_min(1e-12)).log()).sum())
