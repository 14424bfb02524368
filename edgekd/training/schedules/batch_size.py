"""A temperature that keeps the gradients' variance when the batch size changes."""

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep

EXTREME = 65536
"""The largest batch size that the bounds allow for."""


@SCHEDULES.register()
class BatchSize(Schedule):
    """T = start (reference / B)^(1/4), B the samples in the batch.

    `reference` is the batch size that `start` was chosen for. With kl's T^2 the logits' gradient
    grows with T, its variance with T^2 / B.
    """

    for_weights = False

    def __init__(self, start: float = 4.0, reference: int = 128) -> None:
        if reference < 1:
            raise ValueError(f"reference must be at least 1, found {reference}")
        super().__init__()
        self.start, self.reference = start, reference

    @property
    def bounds(self) -> tuple[float, float]:
        smallest = self.start * (self.reference / EXTREME) ** 0.25
        return smallest, self.start * self.reference**0.25

    def forward(self, step: TrainStep) -> float:
        return float(self.start * (self.reference / step.batch_size) ** 0.25)
