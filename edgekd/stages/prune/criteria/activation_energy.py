"""Channels with little in them matter least."""

from typing import ClassVar, Literal

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1607.03250")
class ActivationEnergy(Criterion):
    """The mean square of a channel's output, after its normalization if it has one.

    Over samples and positions. Hu et al. 2016 rank channels by their activations in this way.
    """

    needs: ClassVar[Literal["nothing", "gradients", "training"]] = "gradients"
    reads: ClassVar[Literal["weights", "norms", "outputs"]] = "outputs"

    def step(self, score: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        return score + value.square()
