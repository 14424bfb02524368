"""Weights that training moves towards zero matter least."""

from typing import ClassVar, Literal

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/2005.07683")
class Movement(Criterion):
    """S -= rate * w * dL/dw in every step of training; Sanh et al. 2020, eq. 4.

    While single weights are pruned the gradient is the one behind the mask (straight through), so
    that a pruned weight's score goes on changing and it can come back. Of a channel the sum.
    """

    needs: ClassVar[Literal["nothing", "gradients", "training"]] = "training"
    moves: ClassVar[bool] = True

    def __init__(self, rate: float = 1.0) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be above 0, found {rate}")
        self.rate = rate

    def step(self, score: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        return score - self.rate * value * gradient

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        return score
