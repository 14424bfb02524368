"""Convolutional networks."""

from edgekd.registry import SPACES
from edgekd.searching.spaces import Facts, Space, Stages, narrowing, optional, recovery


@SPACES.register(paper="https://arxiv.org/abs/1802.03494")
class Convolutional(Space):
    """Fewer channels, split convolutions, and int8 or float.

    The amount of channels, the criterion and how it is spread over the layers are chosen together
    with the ranks and the last stage's type.
    """

    def suits(self, facts: Facts) -> float:
        """The share of convolutions, and half of that of other layers with weights."""
        return facts.shares.get("convolution", 0.0) + 0.5 * facts.shares.get("linear", 0.0)

    def stages(self, facts: Facts) -> Stages:
        """Prune, factorize, quantize."""
        prune = {
            "kind": "prune",
            "criterion": {"one_of": ["taylor", "magnitude-l2"]},
            "amount": {"from": 0.1, "to": 0.8},
            "allocation": {"one_of": ["uniform", "global"]},
            **recovery(facts),
        }
        split = {
            "kind": "factorize",
            "rank": {"energy": {"from": 0.8, "to": 0.99}},
            **recovery(facts),
        }
        return [optional(prune), optional(split), *narrowing(facts)]
