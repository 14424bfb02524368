"""The lowest and highest integer that each place of an input may hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.errors import InputError
from edgekd.values.tree import Tree, named_leaves

VOCABULARY = "were these ids made with the network's own vocabulary (its tokenizer)?"


@dataclass(frozen=True, eq=False)
class Limits:
    """Of one input, without a batch dimension: `low` and `high`, both int64 of its shape, both
    allowed."""

    low: Tensor
    high: Tensor

    def outside(self, x: Tensor) -> Tensor:
        """Which integers of a sample, or of a batch of them, lie outside."""
        return (x < self.low) | (x > self.high)

    def within(self, other: "Limits") -> "Limits":
        """What both allow."""
        return Limits(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))


def narrowed(limits: Mapping[str, Limits], other: Mapping[str, Limits]) -> dict[str, Limits]:
    """The limits of each input that has any, as both allow."""
    both = {name: other[name].within(limits[name]) for name in limits if name in other}
    return {**limits, **other, **both}


def limits_fault(
    sample: Tree, limits: Mapping[str, Limits], name: str, where: str
) -> InputError | None:
    """A fault for the first integer of a sample (called `name`) that lies outside its limits."""
    for leaf, x in named_leaves(sample, "").items():
        allowed = limits.get(leaf)
        if allowed is None or allowed.low.shape != x.shape:
            continue
        outside = allowed.outside(x).flatten()
        if bool(outside.any()):
            place = int(outside.int().argmax())
            low, high = (int(each.flatten()[place]) for each in (allowed.low, allowed.high))
            of = f" of '{leaf}'" if leaf else ""
            return InputError(
                f"{name} has {int(x.flatten()[place])} at position {place}{of}: the network looks "
                f"it up in a table",
                where=where,
                allowed=f"{low} to {high}",
                hint=VOCABULARY,
            )
    return None
