"""Reverse KL: the student leaves out what it can't do instead of covering everything."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.losses import ResponseLoss, above_zero
from edgekd.registry import LOSSES


@LOSSES.register(paper="https://arxiv.org/abs/2306.08543")
class ReverseKL(ResponseLoss):
    """T^2 KL(softmax(z_s / T) || softmax(z_t / T)), mode-seeking, the mean over the batch.

    Gu et al. 2023 (MiniLLM), section 2.1.
    """

    temperature: float

    def __init__(self, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        student = F.log_softmax(student / self.temperature, dim=1)
        teacher = F.log_softmax(teacher / self.temperature, dim=1)
        divergence = F.kl_div(teacher, student, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2
