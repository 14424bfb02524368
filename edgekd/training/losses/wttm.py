"""Weighted transformed teacher matching: smooth teachers' answers count more."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero
from edgekd.training.losses._rows import divergence, softened


@LOSSES.register(paper="https://arxiv.org/abs/2402.11148")
class WTTM(ResponseLoss):
    """U KL(softmax(z_t / T) || softmax(z_s)), U = sum_j p_j^(1/T), the mean over the batch.

    Zheng and Yang 2024: p is the teacher's softmax at temperature 1, and the power sum U weights
    each sample by how smooth its answer is. Zero where z_s equals z_t / T.
    """

    temperature: float | Tensor

    def __init__(self, temperature: float = 4.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    @property
    def averaged_at(self) -> float:
        """1: the power sum needs the teachers' plain probabilities."""
        return 1.0

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        powers = softened(teacher, 1.0) / self.temperature
        smoothness = powers.exp().sum(1)
        return smoothness * divergence(softened(powers, 1.0), softened(student, 1.0))
