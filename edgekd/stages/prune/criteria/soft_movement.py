"""Movement with a penalty on the scores, so that layers compete for what is kept."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/2005.07683")
class SoftMovement(Criterion):
    """S -= rate * (w * dL/dw + penalty * s (1 - s)), s = sigmoid(S); Sanh et al. 2020, section 4.

    The paper keeps what lies above a fixed threshold; here the threshold is the one that removes
    the recipe's amount, and of single weights with allocation "global" it is one for all layers, as
    in the paper.
    """

    needs: ClassVar[Literal["nothing", "gradients", "training"]] = "training"
    moves: ClassVar[bool] = True
    comparable: ClassVar[bool] = True

    def __init__(self, rate: float = 1.0, penalty: float = 1e-4) -> None:
        if rate <= 0 or penalty < 0:
            raise ValueError(
                f"rate must be above 0 and penalty not below, found {rate} and {penalty}"
            )
        self.rate, self.penalty = rate, penalty

    def step(self, score: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        soft = torch.sigmoid(score)
        return score - self.rate * (value * gradient + self.penalty * soft * (1 - soft))

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        return torch.sigmoid(score)
