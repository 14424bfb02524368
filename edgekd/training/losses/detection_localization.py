"""Localization distillation: the teacher's doubt about where a box ends goes over too."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero
from edgekd.training.losses._binary import binary_divergence
from edgekd.training.losses._grid import refuse_other


@LOSSES.register(paper="https://arxiv.org/abs/2102.12252")
class DetectionLocalization(OutputLoss):
    """T^2 KL(b_t || b_s) of each box logit's sigmoid at T, weighted by the teacher's object share.

    Zheng et al. 2022, equation 5. Theirs are distributions over the places of an edge; here each of
    x, y, width and height is one logit, a distribution over the two ends of its range. The mean
    over cells by weight, and over the four.
    """

    tasks = ("detection",)

    def __init__(self, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        refuse_other(outputs)

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        sure = teacher[:, 0].sigmoid()
        theirs, mine = (side[:, 1:5] / self.temperature for side in (teacher, student))
        divergence = binary_divergence(theirs, mine).mean(1) * self.temperature**2
        return (sure * divergence).sum() / sure.sum().clamp_min(1e-6)
