"""A temperature for each sample, by how far the teacher's logits lie apart."""

import torch
from torch import Tensor

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Schedule, TrainStep


@SCHEDULES.register(paper="https://arxiv.org/abs/2403.01427")
class Spread(Schedule):
    """T_i = base std(z_t,i), between `least` and `most`; std over the sample's classes.

    Sun et al. 2024, section 3.2, derive the standard deviation as each sample's own temperature;
    here both sides share the teacher's. A sharp answer is softened more than a flat one.
    """

    for_weights = False
    each_sample = True

    def __init__(self, base: float = 2.0, least: float = 0.5, most: float = 20.0) -> None:
        if not 0 < least <= most or not base > 0:
            raise ValueError(
                f"needs 0 < least <= most and base > 0, found {least}, {most} and {base}"
            )
        super().__init__()
        self.base, self.least, self.most = base, least, most

    @property
    def bounds(self) -> tuple[float, float]:
        return self.least, self.most

    def forward(self, step: TrainStep) -> Tensor:
        if step.teacher_logits is None:
            raise ValueError("needs the teacher's logits")
        with torch.no_grad():
            spread = step.teacher_logits.std(1, correction=0, keepdim=True)
        return (self.base * spread).clamp(self.least, self.most)
