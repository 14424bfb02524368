"""Weights that training hardly changes matter least."""

from typing import ClassVar, Literal

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1905.01067")
class DistanceMoved(Criterion):
    """|w_final - w_initial| over the scoring epochs; of a channel the sum. Zhou et al. 2019."""

    needs: ClassVar[Literal["nothing", "gradients", "training"]] = "training"

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        return (last - first).abs()
