"""The scores of a detector's proposals: is there an object, and of which class."""

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero, not_negative
from edgekd.training.losses._binary import binary_divergence
from edgekd.training.losses._grid import refuse_other


@LOSSES.register(paper="https://papers.nips.cc/paper/6676")
class DetectionScores(OutputLoss):
    """KL(o_t || o_s) + `classes` o_t T^2 KL(p_t || p_s), the mean over the cells.

    Chen et al. 2017, equation 2, for a grid detector: o is the sigmoid of a cell's object logit
    (the background's share is its other half), p the softmax of its class logits at T, which counts
    as far as the teacher sees an object there.
    """

    tasks = ("detection",)

    def __init__(self, classes: float = 1.0, temperature: float = 1.0) -> None:
        not_negative(classes=classes)
        above_zero(temperature=temperature)
        super().__init__()
        self.classes, self.temperature = classes, temperature

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        refuse_other(outputs)

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        objects = binary_divergence(teacher[:, 0], student[:, 0])
        mine, theirs = (
            torch.log_softmax(side[:, 5:] / self.temperature, 1) for side in (student, teacher)
        )
        named = (theirs.exp() * (theirs - mine)).sum(1) * self.temperature**2
        return (objects + self.classes * teacher[:, 0].sigmoid() * named).mean()
