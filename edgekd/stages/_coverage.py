"""The parts of a network that a stage left unchanged, as shares of the whole, for the report."""

from collections.abc import Collection, Sequence

from torch import nn

from edgekd.network.cost import LayerCost, layer_costs, parameter_count
from edgekd.network.taps import is_within
from edgekd.values.tree import Tree

LEAST = 0.005
"""Smaller shares are not reported."""


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


def changed_layers(before: nn.Module, after: nn.Module) -> set[str]:
    """The layers of `before` whose parameters changed shape in `after`, or were removed."""
    shapes = {name: value.shape for name, value in after.named_parameters(remove_duplicate=False)}
    return {
        name.rpartition(".")[0]
        for name, value in before.named_parameters(remove_duplicate=False)
        if shapes.get(name) != value.shape
    }
