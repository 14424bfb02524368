"""Networks of linear layers."""

from edgekd.registry import SPACES
from edgekd.searching.spaces import Facts, Space, Stages, narrowing, optional, recovery


@SPACES.register(paper="https://arxiv.org/abs/1608.08710")
class Dense(Space):
    """Fewer neurons, low-rank linear layers, and int8 or float."""

    def suits(self, facts: Facts) -> float:
        """The share of linear layers, in a network without attention."""
        share = facts.shares.get("linear", 0.0)
        return 0.5 * share if facts.attention else share

    def stages(self, facts: Facts) -> Stages:
        """Prune, factorize, quantize."""
        prune = {"kind": "prune", "amount": {"from": 0.1, "to": 0.8}, **recovery(facts)}
        split = {
            "kind": "factorize",
            "rank": {"energy": {"from": 0.8, "to": 0.99}},
            **recovery(facts),
        }
        return [optional(prune), optional(split), *narrowing(facts)]
