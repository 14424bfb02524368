"""Along half a cosine from one value to another."""

import math

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep


@SCHEDULES.register(paper="https://arxiv.org/abs/1608.03983")
class Cosine(Schedule):
    """v(t) = end + (start - end) (1 + cos(pi t / (steps - 1))) / 2, t counted from 0.

    Loshchilov and Hutter 2017, equation 5, without restarts.
    """

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)

    def forward(self, step: TrainStep) -> float:
        share = (1 + math.cos(math.pi * step.progress)) / 2
        return self.end + (self.start - self.end) * share
