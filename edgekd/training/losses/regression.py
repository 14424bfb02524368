"""Real numbers: follow the teacher, or let it bound what the targets ask for."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero, not_negative


@LOSSES.register(paper="https://papers.nips.cc/paper/6676")
class Regression(OutputLoss):
    """(s - t)^2, or Huber's with `delta`, or the teacher-bounded error; the mean over the elements.

    `bounded`: |s - y|^2 of a sample where |s - y|^2 + `margin` > |t - y|^2, else 0: Chen et al.
    2017, equation 4. It is zero where the student is better than the teacher by the margin, not
    where it equals it.
    """

    def __init__(
        self,
        form: Literal["mse", "huber", "bounded"] = "mse",
        delta: float = 1.0,
        margin: float = 0.0,
    ) -> None:
        above_zero(delta=delta)
        not_negative(margin=margin)
        super().__init__()
        self.form, self.delta, self.margin = form, delta, margin

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if self.form == "bounded" and outputs != targets:
            raise ValueError(f"'bounded' needs targets like the outputs, found {targets}")

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        if self.form == "mse":
            return F.mse_loss(student, teacher)
        if self.form == "huber":
            return F.huber_loss(student, teacher, delta=self.delta)
        mine, theirs = (((side - targets) ** 2).flatten(1).mean(1) for side in (student, teacher))
        return torch.where(mine + self.margin > theirs, mine, 0.0).mean()
