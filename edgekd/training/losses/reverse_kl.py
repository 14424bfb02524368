"""Reverse KL: the student leaves out what it can't do instead of covering everything."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero
from edgekd.training.losses._rows import divergence, softened, squared


@LOSSES.register(paper="https://arxiv.org/abs/2306.08543")
class ReverseKL(ResponseLoss):
    """T^2 KL(softmax(z_s / T) || softmax(z_t / T)), mode-seeking, the mean over the batch.

    Gu et al. 2023 (MiniLLM), section 2.1.
    """

    temperature: float | Tensor

    def __init__(self, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        mine, theirs = softened(student, self.temperature), softened(teacher, self.temperature)
        return divergence(mine, theirs) * squared(self.temperature)
