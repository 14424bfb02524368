"""Small weights matter least, by their square."""

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1506.02626")
class MagnitudeL2(Criterion):
    """w^2; of a channel the root of the sum, its L2 norm. Han et al. 2015."""

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        return last.square()

    def channel(self, total: Tensor) -> Tensor:
        return total.sqrt()
