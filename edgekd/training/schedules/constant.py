"""The same value in every step."""

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep


@SCHEDULES.register()
class Constant(Schedule):
    """v(t) = value."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = value

    @property
    def bounds(self) -> tuple[float, float]:
        return self.value, self.value

    def forward(self, step: TrainStep) -> float:
        return self.value
