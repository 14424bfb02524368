"""What the loss would change by, to first order, if a weight went."""

from typing import ClassVar, Literal

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1906.10771")
class Taylor(Criterion):
    """(w * dL/dw)^2, the mean over batches; of a channel the sum. Molchanov et al. 2019, eq. 5.

    The loss is the cross-entropy with the labels, the model in eval mode.
    """

    needs: ClassVar[Literal["nothing", "gradients", "training"]] = "gradients"

    def step(self, score: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        return score + (value * gradient).square()
