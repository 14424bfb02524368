"""What a recipe asks of a pruning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgekd.network.taps import is_within
from edgekd.stages.prune.by_cost import Measure
from edgekd.stages.prune.granularity import Removed


@dataclass(frozen=True)
class PruneSpec:
    """Which units compete and how their scores are found.

    `ignore` names layers, or modules that hold them, to leave alone. `comparable` says that scores
    of different layers compete as they are. `samples` is how many training samples gradients are
    scored on, `score_epochs` how long a criterion that watches training trains before each cut.
    `measure` is what a budget is a share of.
    """

    allocation: Literal["uniform", "global", "sensitivity", "cost"] = "uniform"
    multiple: int = 1
    ignore: tuple[str, ...] = ()
    kind: Removed = "channels"
    comparable: bool = False
    samples: int = 512
    score_epochs: int = 1
    measure: Measure = "macs"

    def ignores(self, layer: str) -> bool:
        """Whether a layer is to be left alone."""
        return is_within(layer, self.ignore)


@dataclass(frozen=True)
class Goal:
    """How much one step removes: `amount` of the units that there were at `first`, the share of
    each layer, or as many as bring the network's multiply-accumulates or parameters (`measure`)
    down to `limit`."""

    first: Mapping[Any, int]
    amount: float | None
    limit: float | None
    measure: Measure = "macs"
