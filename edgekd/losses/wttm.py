"""Weighted transformed teacher matching: smooth teachers' answers count more."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.losses import ResponseLoss, above_zero
from edgekd.registry import LOSSES


@LOSSES.register(paper="https://arxiv.org/abs/2402.11148")
class WTTM(ResponseLoss):
    """U KL(softmax(z_t / T) || softmax(z_s)), U = sum_j p_j^(1/T), the mean over the batch.

    Zheng and Yang 2024: p is the teacher's softmax at temperature 1, and the power sum U weights
    each sample by how smooth its answer is. Zero where z_s equals z_t / T.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.power = 1.0 / temperature
        self.temperature = 1.0  # the power sum needs several teachers averaged at 1

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        plain = F.log_softmax(teacher, dim=1)
        softened = F.log_softmax(plain * self.power, dim=1)
        student = F.log_softmax(student, dim=1)
        each = F.kl_div(student, softened, reduction="none", log_target=True).sum(1)
        return ((plain * self.power).exp().sum(1) * each).mean()
