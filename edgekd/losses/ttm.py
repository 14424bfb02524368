"""Transformed teacher matching: temperature on the teacher's side only."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.losses import ResponseLoss, above_zero
from edgekd.registry import LOSSES


@LOSSES.register(paper="https://arxiv.org/abs/2402.11148")
class TTM(ResponseLoss):
    """KL(softmax(z_t / T) || softmax(z_s)), the mean over the batch.

    Zheng and Yang 2024: dropping the student's temperature adds a Renyi entropy term to Hinton's
    KL. It is zero where the student's logits equal the teacher's divided by T.
    """

    temperature: float

    def __init__(self, temperature: float = 4.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        student = F.log_softmax(student, dim=1)
        teacher = F.log_softmax(teacher / self.temperature, dim=1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
