"""DIST: keep the teacher's relations between classes and within classes, not its values."""

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero, not_all_zero, not_negative
from edgekd.training.losses._rows import squared


@LOSSES.register(paper="https://arxiv.org/abs/2205.10536")
class DIST(ResponseLoss):
    """T^2 (beta (1 - Pearson between classes) + gamma (1 - Pearson within classes)).

    Huang et al. 2022, equations 8 to 10, on softmax(z / T). Between classes: each sample's row,
    averaged over the batch. Within: each class's column, averaged over classes; with a single
    sample in the batch there is no column to correlate and the term is left out. What is constant
    has the correlation 0; one class alone has nothing to correlate: zero.
    """

    temperature: float | Tensor

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        above_zero(temperature=temperature)
        not_negative(beta=beta, gamma=gamma)
        not_all_zero(beta=beta, gamma=gamma)
        super().__init__()
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        if student.shape[1] < 2:
            return 0.0 * student.sum(1)
        student = F.softmax(student / self.temperature, dim=1)
        teacher = F.softmax(teacher / self.temperature, dim=1)
        loss = self.beta * (1 - _pearson(student, teacher))
        if len(student) > 1:  # the same for each row, so that its mean is the paper's
            loss = loss + self.gamma * (1 - _pearson(student.T, teacher.T).mean())
        return loss * squared(self.temperature)


def _pearson(student: Tensor, teacher: Tensor) -> Tensor:
    """The correlation of each row with its counterpart."""
    student = student - student.mean(1, keepdim=True)
    teacher = teacher - teacher.mean(1, keepdim=True)
    return F.cosine_similarity(student, teacher, dim=1)
