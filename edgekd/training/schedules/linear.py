"""In a straight line from one value to another."""

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep


@SCHEDULES.register(paper="https://aclanthology.org/2021.eacl-main.212")
class Linear(Schedule):
    """v(t) = start + (end - start) t / (steps - 1), t counted from 0.

    Jafari et al. 2021 (annealing KD) lower a temperature in this way.
    """

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)

    def forward(self, step: TrainStep) -> float:
        return self.start + (self.end - self.start) * step.progress
