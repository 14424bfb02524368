"""Rank mimicking: the student orders a picture's proposals as the teacher does."""

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero
from edgekd.training.losses._grid import refuse_other, scores_of
from edgekd.training.losses._rows import divergence


@LOSSES.register(paper="https://arxiv.org/abs/2112.04840")
class DetectionRank(OutputLoss):
    """T^2 KL(softmax(c_t / T) || softmax(c_s / T)) over an image's proposals, the mean over images.

    Li et al. 2022, equations 1 and 2, on all cells of a grid detector: c is how sure a proposal is,
    its object logit plus the log-probability of its best class.
    """

    tasks = ("detection",)

    def __init__(self, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        refuse_other(outputs)

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        mine, theirs = (
            torch.log_softmax(scores_of(side) / self.temperature, 1) for side in (student, teacher)
        )
        return divergence(theirs, mine).mean() * self.temperature**2
