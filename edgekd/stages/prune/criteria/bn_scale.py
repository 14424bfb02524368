"""Scores channels by the scale of their normalization layers."""

from typing import ClassVar, Literal

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1708.06519")
class BnScale(Criterion):
    """|gamma| of the normalization layers after a channel. Network slimming, Liu et al. 2017."""

    reads: ClassVar[Literal["weights", "norms", "outputs"]] = "norms"

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        return last.abs()
