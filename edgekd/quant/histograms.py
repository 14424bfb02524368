"""Histograms that widen as larger values come: the values of all samples in bounded memory."""

import torch
from torch import Tensor

SIDE = 4096
"""Bins on each side of zero. A width that doubles halves those in use, so at least half of them are
in use on the side of the largest value: eight for each step of a grid of 256."""

_PART = 2**23
"""The most values counted at once, in float32, which holds every integer up to 2^24."""


class Histogram:
    """Counts of values in bins of one width, with an edge at zero. Where a value lies beyond the
    last bin, the width is doubled and bins are merged in pairs, so no count is ever approximated.
    Values that are exactly zero, which every grid holds, are counted as `zeros` alone.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(2 * SIDE, dtype=torch.float64)
        self.width, self.zeros = 0.0, 0

    def add(self, values: Tensor) -> None:
        """Count finite values, of any shape."""
        for part in values.detach().float().flatten().tensor_split(_parts(values.numel())):
            low, high = part.aminmax()
            zeros = int((part == 0).sum())
            self.zeros += zeros
            if zeros == len(part):
                continue
            self._reach(max(-float(low), float(high)))
            end = self.width * SIDE
            self.counts += torch.histc(part, 2 * SIDE, min=-end, max=end).double()
            self.counts[SIDE] -= zeros

    def _reach(self, largest: float) -> None:
        if self.width == 0.0:
            self.width = largest * (1 + 1e-6) / SIDE
        while largest > self.width * SIDE:
            self.widen()

    def widen(self) -> None:
        """Double the bins' width."""
        half = SIDE // 2
        merged = self.counts.view(-1, 2).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[half : half + SIDE] = merged
        self.width *= 2.0

    @property
    def centers(self) -> Tensor:
        """The middle of each bin (2 SIDE,)."""
        return (torch.arange(2 * SIDE, dtype=torch.float64) - SIDE + 0.5) * self.width


def _parts(number: int) -> int:
    return max(1, -(-number // _PART))


def merged(histograms: list[Histogram]) -> Histogram:
    """The histogram of the values of several, up to the width of a bin."""
    if len(histograms) == 1:
        return histograms[0]
    result = Histogram()
    result.width = max(each.width for each in histograms)
    for each in histograms:
        if each.width == 0.0 or each.width == result.width:
            result.counts += each.counts
            continue
        places = (each.centers / result.width).floor().long() + SIDE
        result.counts.index_add_(0, places, each.counts)
    result.zeros = sum(each.zeros for each in histograms)
    return result
