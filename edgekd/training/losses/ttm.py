"""Transformed teacher matching: temperature on the teacher's side only."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero
from edgekd.training.losses._rows import divergence, softened


@LOSSES.register(paper="https://arxiv.org/abs/2402.11148")
class TTM(ResponseLoss):
    """KL(softmax(z_t / T) || softmax(z_s)), the mean over the batch.

    Zheng and Yang 2024: dropping the student's temperature adds a Renyi entropy term to Hinton's
    KL. It is zero where the student's logits equal the teacher's divided by T.
    """

    temperature: float | Tensor

    def __init__(self, temperature: float = 4.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return divergence(softened(teacher, self.temperature), softened(student, 1.0))
