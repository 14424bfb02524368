"""Decoupled distillation: the target's share and the rest, weighted apart."""

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero, not_all_zero, not_negative
from edgekd.training.losses._rows import divergence, softened, squared


@LOSSES.register(paper="https://arxiv.org/abs/2203.08679")
class DKD(ResponseLoss):
    """T^2 (alpha TCKD + beta NCKD), the mean over the batch.

    Zhao et al. 2022, equation 7. TCKD is the KL between the binary distributions (target, not
    target), NCKD the KL between the softmaxes over all classes but the target; two classes have no
    NCKD, and one has neither.
    """

    temperature: float | Tensor
    labelled = True

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        above_zero(temperature=temperature)
        not_negative(alpha=alpha, beta=beta)
        not_all_zero(alpha=alpha, beta=beta)
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        if student.shape[1] < 2:
            return 0.0 * student.sum(1)
        mine, rest = self._decoupled(student, labels)
        theirs, teachers_rest = self._decoupled(teacher, labels)
        target, others = divergence(theirs, mine), divergence(teachers_rest, rest)
        return (self.alpha * target + self.beta * others) * squared(self.temperature)

    def _decoupled(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, 2) of target and not target, and (B, classes - 1) of the rest."""
        logs = softened(logits, self.temperature)
        chosen = F.one_hot(labels, logits.shape[1]).bool()
        others = logs[~chosen].view(len(logits), -1)
        total = others.logsumexp(1, keepdim=True)
        return torch.cat([logs[chosen].view(-1, 1), total], dim=1), others - total
