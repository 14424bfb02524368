"""Curriculum temperature: learned against the student, so that its task gets harder."""

import math

import torch
from torch import Tensor, nn

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep


@SCHEDULES.register(paper="https://arxiv.org/abs/2211.16231")
class Learned(Schedule):
    """T = least + (most - least) sigmoid(a), a learned with its gradient reversed.

    Li et al. 2023 (CTKD), equations 4 to 8, the global temperature: the student lowers the loss and
    a raises it. The reversed gradient is scaled by lambda = `scale` times
    (1 - cos(pi min(1, e / epochs))) / 2, e the epochs so far: the task is easy at first. It
    starts at `start`.
    """

    for_weights = False

    def __init__(
        self,
        start: float = 4.0,
        least: float = 1.0,
        most: float = 21.0,
        epochs: int = 10,
        scale: float = 1.0,
    ) -> None:
        if not least < start < most:
            raise ValueError(f"start must lie between {least} and {most}, found {start}")
        if epochs < 1 or scale < 0:
            raise ValueError("epochs must be at least 1 and scale must not be negative")
        super().__init__()
        self.least, self.most, self.epochs, self.scale = least, most, epochs, scale
        share = (start - least) / (most - least)
        self.place = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @property
    def bounds(self) -> tuple[float, float]:
        return self.least, self.most

    def forward(self, step: TrainStep) -> Tensor:
        gone = min(1.0, step.number / step.steps_per_epoch / self.epochs)
        strength = self.scale * (1 - math.cos(math.pi * gone)) / 2
        # The same value whose gradient is -strength times its own.
        turned = (1 + strength) * self.place.detach() - strength * self.place
        return self.least + (self.most - self.least) * torch.sigmoid(turned)
