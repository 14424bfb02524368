"""Falling with the square root of the epoch."""

import math

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep

MANY = 1000.0
"""No training has more than a million epochs."""


@SCHEDULES.register()
class InverseSqrt(Schedule):
    """v(e) = max(least, start / sqrt(e)), e the epoch counted from 1."""

    def __init__(self, start: float, least: float = 0.0) -> None:
        if least > start:
            raise ValueError(f"least must not be above start, found {least} and {start}")
        super().__init__()
        self.start, self.least = start, least

    @property
    def bounds(self) -> tuple[float, float]:
        return max(self.least, self.start / MANY), self.start

    def forward(self, step: TrainStep) -> float:
        return max(self.least, self.start / math.sqrt(step.epoch + 1))
