"""Transformers."""

from edgekd.registry import SPACES
from edgekd.searching.spaces import Facts, Space, Stages, narrowing, optional, recovery


@SPACES.register(paper="https://arxiv.org/abs/1905.10650")
class Transformer(Space):
    """Fewer attention heads and feed-forward neurons, low-rank linear layers, and int8 or float."""

    def suits(self, facts: Facts) -> float:
        """The share of linear layers and matrix products, in a network with attention."""
        products = facts.shares.get("linear", 0.0) + facts.shares.get("matmul", 0.0)
        return products if facts.attention else 0.0

    def stages(self, facts: Facts) -> Stages:
        """Prune heads, prune neurons, factorize, quantize."""
        heads, neurons = (
            {
                "kind": "prune",
                "granularity": unit,
                "criterion": "taylor",
                "amount": {"from": 0.1, "to": most},
                **recovery(facts),
            }
            for unit, most in (("heads", 0.5), ("neurons", 0.7))
        )
        split = {
            "kind": "factorize",
            "rank": {"energy": {"from": 0.8, "to": 0.99}},
            **recovery(facts),
        }
        return [optional(heads), optional(neurons), optional(split), *narrowing(facts)]
