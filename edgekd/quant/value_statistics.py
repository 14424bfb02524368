"""What calibration keeps of a value in the graph: extremes, their means, and a histogram."""

from torch import Tensor

from edgekd.quant.histograms import Histogram

SHARE = 0.1
"""How far a batch moves the moving average; the first ten batches count alike."""


class ValueStatistics:
    """Statistics of one value, batch by batch, in memory that does not grow with the samples.

    `low` and `high` are the extremes of all samples, `moving` is the moving average of the batches'
    extremes; `histogram` stays empty unless it is asked for.
    """

    def __init__(self, histogram: bool = False) -> None:
        self.low, self.high = float("inf"), float("-inf")
        self.moving = (0.0, 0.0)
        self.histogram = Histogram()
        self._counts = histogram
        self._batches, self._samples = 0, 0
        self._sums = (0.0, 0.0)

    def add(self, value: Tensor, samples: int) -> None:
        """One batch of `samples`; values without that first dimension count as one sample."""
        each = value.detach().float()
        each = each.reshape(samples, -1) if _is_of_samples(each, samples) else each.reshape(1, -1)
        if each.numel() == 0:
            return
        lows, highs = each.aminmax(dim=1)
        if not bool(lows.isfinite().all() and highs.isfinite().all()):
            each = each[each.isfinite()][None]
            if each.numel() == 0:
                return
            lows, highs = each.aminmax(dim=1)
        self._extremes(float(lows.min()), float(highs.max()))
        self._samples += len(lows)
        self._sums = self._sums[0] + float(lows.sum()), self._sums[1] + float(highs.sum())
        if self._counts:
            self.histogram.add(each)

    def _extremes(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._batches += 1
        share = max(SHARE, 1.0 / self._batches)
        before = self.moving
        self.moving = (
            before[0] + share * (low - before[0]),
            before[1] + share * (high - before[1]),
        )

    def mean_of_samples(self) -> tuple[float, float]:
        """The means of the samples' smallest and largest values."""
        return self._sums[0] / max(1, self._samples), self._sums[1] / max(1, self._samples)


def _is_of_samples(value: Tensor, samples: int) -> bool:
    return value.dim() > 0 and len(value) == samples
