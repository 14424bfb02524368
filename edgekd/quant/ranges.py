"""Where the ends of a value's grid lie, given what the calibration samples show of the value.

A range between the extremes rounds coarsely for the sake of a few values; a narrower one clips
those. `ranges` names the rule by which the two are balanced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgekd.quant.histograms import Histogram, merged
from edgekd.quant.range_search import entropy_range, mse_range, octav_range, percentile_range
from edgekd.quant.value_statistics import ValueStatistics

Ranges = Literal["minmax", "mean-minmax", "moving-average", "percentile", "entropy", "mse", "octav"]
"""minmax: the extremes over all samples. mean-minmax: the mean of the samples' extremes.
moving-average: that of the extremes of batches. percentile: what all but a few values lie between.
The others weigh clipping against rounding: entropy by the divergence of the distribution (as
TensorRT), mse by the squared error, octav by Newton steps to the least squared error (Sakr 2022).
"""

WeightRanges = Literal["max", "mse"]
"""max: the largest weight is the largest integer; mse: the range with the least squared error."""

FROM_HISTOGRAMS = ("percentile", "entropy", "mse", "octav")
PERCENTILE = 99.99


@dataclass(frozen=True)
class RangeRule:
    """A rule and, for "percentile", the share of values in percent that the range keeps."""

    kind: Ranges = "minmax"
    percentile: float = PERCENTILE

    @property
    def needs_histograms(self) -> bool:
        """Whether the extremes alone don't decide."""
        return self.kind in FROM_HISTOGRAMS

    @property
    def clips(self) -> bool:
        """Whether values of the samples may lie outside the range."""
        return self.kind != "minmax"


EXTREMES = RangeRule()


@dataclass(frozen=True)
class Levels:
    """A grid's number of steps between its ends, and whether its zero is in the middle."""

    steps: int
    symmetric: bool


def range_of(
    values: Sequence[ValueStatistics], rule: RangeRule, levels: Levels
) -> tuple[float, float]:
    """The ends of the grid that all these values share; zero lies between them."""
    if rule.needs_histograms:
        return _searched(merged([each.histogram for each in values]), values, rule, levels)
    ends = [_ends(each, rule.kind) for each in values]
    return min(0.0, *(low for low, _ in ends)), max(0.0, *(high for _, high in ends))


def _ends(value: ValueStatistics, kind: Ranges) -> tuple[float, float]:
    if kind == "mean-minmax":
        return value.mean_of_samples()
    return value.moving if kind == "moving-average" else (value.low, value.high)


def _searched(
    histogram: Histogram, values: Sequence[ValueStatistics], rule: RangeRule, levels: Levels
) -> tuple[float, float]:
    """A range from the histogram, which never lies beyond the extremes."""
    low, high = min(0.0, *(each.low for each in values)), max(0.0, *(each.high for each in values))
    if low == high:
        return low, high
    if rule.kind == "percentile":
        found = percentile_range(histogram, rule.percentile)
    elif rule.kind == "octav":
        found = octav_range(histogram, (low, high), levels.steps, levels.symmetric)
    elif rule.kind == "entropy":
        found = entropy_range(histogram, (low, high), levels.steps, levels.symmetric)
    else:
        found = mse_range(histogram, (low, high), levels.steps, levels.symmetric)
    return max(low, min(0.0, found[0])), min(high, max(0.0, found[1]))
