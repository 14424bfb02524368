"""KL on standardized logits: the student need not match the teacher's logit range."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import ResponseLoss, above_zero
from edgekd.training.losses._rows import divergence, softened, squared


@LOSSES.register(paper="https://arxiv.org/abs/2403.01427")
class LogitStandardized(ResponseLoss):
    """T^2 KL between softmaxes of (z - mean) / std / T, each sample standardized on its own.

    Sun et al. 2024, algorithm 1. `temperature` is the base temperature on both sides; the standard
    deviation is the sample's own over its classes (divided by classes - 1).
    """

    temperature: float | Tensor

    def __init__(self, temperature: float = 2.0) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature = temperature

    def each(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        mine = softened(_standardized(student), self.temperature)
        theirs = softened(_standardized(teacher), self.temperature)
        return divergence(theirs, mine) * squared(self.temperature)


def _standardized(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(1, keepdim=True)
    # vector_norm has a finite gradient where all logits are equal; std() has not.
    deviation = centred.norm(dim=1, keepdim=True) / max(1, logits.shape[1] - 1) ** 0.5
    standardized: Tensor = centred / (deviation + 1e-7)
    return standardized
