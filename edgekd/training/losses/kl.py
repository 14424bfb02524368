"""Hinton's distillation: match the teacher's softened probabilities."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero
from edgekd.training.losses._rows import divergence, softened, squared


@LOSSES.register(paper="https://arxiv.org/abs/1503.02531")
class KL(ResponseLoss):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), the mean over the batch.

    Hinton, Vinyals, Dean 2015, section 2. T^2 keeps the gradient's size when T changes; the
    gradient on the student's logits is T (p_s - p_t) / B.
    """

    temperature: float | Tensor

    def __init__(self, temperature: float = 4.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        mine, theirs = softened(student, self.temperature), softened(teacher, self.temperature)
        return divergence(theirs, mine) * squared(self.temperature)
