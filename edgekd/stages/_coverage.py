"""The parts of a network that a stage left unchanged, as shares of the whole, for the report."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import LayerCost, layer_costs, parameter_count
from edgekd.network.taps import is_within
from edgekd.values.tree import Tree

LEAST = 0.005
"""Smaller shares are not reported."""

_SHOWN = 6


def untouched(module: nn.Module, example: Tree, touched: Collection[str]) -> str:
    """The share of parameters and MACs outside the touched layers, by kind of layer; "" if none.

    `module` is the network as it was before the stage.
    """
    return untouched_of(layer_costs(module, example), parameter_count(module), touched)


def untouched_of(costs: Sequence[LayerCost], parameters: int, touched: Collection[str]) -> str:
    """As `untouched`, for the costs of a network with so many parameters."""
    parameters = max(1, parameters)
    macs = max(1, sum(cost.macs for cost in costs))
    left = [cost for cost in costs if not is_within(cost.name, touched)]
    if not left:
        return ""
    kinds: dict[str, tuple[float, float]] = {}
    for cost in left:
        size, work = kinds.get(cost.kind, (0.0, 0.0))
        kinds[cost.kind] = size + cost.parameters / parameters, work + cost.macs / macs
    size, work = (sum(shares[side] for shares in kinds.values()) for side in (0, 1))
    parts = [
        f"{kind} {shares[0]:.0%} and {shares[1]:.0%}"
        for kind, shares in sorted(kinds.items(), key=lambda item: (-sum(item[1]), item[0]))
        if max(shares) >= LEAST
    ]
    if not parts:
        return ""
    return f"untouched: {size:.0%} of the parameters, {work:.0%} of the MACs ({', '.join(parts)})"


@dataclass(frozen=True)
class Share:
    """What a stage could touch: the layers `reached` of all `costs`, and why others stay as they
    are (`reasons`, by layer). Layers within `ignored` count neither way."""

    costs: tuple[LayerCost, ...]
    reached: Collection[str]
    reasons: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    def faults(self, verb: str, least: float, where: str) -> list[EdgekdError]:
        """A fault if less than the share `least` of the MACs of layers with weights is reached,
        with the largest layers that stay and the reasons."""
        costs = [
            cost
            for cost in self.costs
            if cost.parameters and cost.macs and not is_within(cost.name, self.ignored)
        ]
        total = sum(cost.macs for cost in costs)
        share = sum(cost.macs for cost in costs if cost.name in self.reached) / max(1, total)
        if not costs or share >= least:
            return []
        left = sorted((c for c in costs if c.name not in self.reached), key=lambda c: -c.macs)
        listed = [
            f"{cost.name} ({self.reasons.get(cost.name, cost.kind)}, {cost.macs / total:.0%})"
            for cost in left
        ]
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        return [
            InputError(
                f"{verb} could touch {share:.0%} of the multiply-accumulates of layers with "
                f"weights; these would stay: {', '.join(listed[:_SHOWN])}{more}",
                where=f"{where}.least",
                allowed=f"at least {least:.0%}",
                hint=f"set least = {int(share * 100) / 100:g} to accept that, or list what may "
                "stay under 'ignore'",
            )
        ]


def changed_layers(before: nn.Module, after: nn.Module) -> set[str]:
    """The layers of `before` whose parameters changed shape in `after`, or were removed."""
    shapes = {name: value.shape for name, value in after.named_parameters(remove_duplicate=False)}
    return {
        name.rpartition(".")[0]
        for name, value in before.named_parameters(remove_duplicate=False)
        if shapes.get(name) != value.shape
    }
