"""The order in which channels and blocks stand: that of an elastic distillation."""

from typing import ClassVar, Literal

from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion


@CRITERIA.register(paper="https://arxiv.org/abs/1903.05134")
class Nested(Criterion):
    """Keeps each layer's first channels, which `scheme = "elastic"` has trained to work alone.

    Of blocks, the first of each shape stay: a stage loses its last ones. Batch norms get the
    statistics of the smaller network. `epochs` may be 0. Yu and Huang 2019.
    """

    reads: ClassVar[Literal["order"]] = "order"
