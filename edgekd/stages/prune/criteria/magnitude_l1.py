"""Small weights matter least, by absolute value."""

from torch import Tensor

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1608.08710")
class MagnitudeL1(Criterion):
    """|w|; of a channel the sum, its L1 norm. Li et al. 2016, section 3.1."""

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        return last.abs()
