"""How much of a network a quantization reaches, known before any calibration or training."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import LayerCost, layer_costs
from edgekd.network.fx_names import layer_of
from edgekd.network.taps import is_within
from edgekd.quant import ops
from edgekd.quant.chains import chains_of, inner_nodes
from edgekd.quant.decomposing import decompose
from edgekd.quant.functional import slice_splits
from edgekd.quant.inspection import computes
from edgekd.quant.operands import make_operands_tensors
from edgekd.quant.regions import integer_nodes
from edgekd.quant.weight_only import weighted_layers
from edgekd.values.tree import Tree

aten = torch.ops.aten

_PRODUCTS = ops.WEIGHTED | {aten.matmul.default, aten.bmm.default}

_SHOWN = 6


@dataclass(frozen=True)
class Reach:
    """`layers` are the layers whose products are computed in integers, or whose weights are stored
    narrow; `floats` the operators that stay in float, as 'aten.layer_norm (norm)'."""

    costs: tuple[LayerCost, ...]
    layers: frozenset[str]
    floats: tuple[str, ...] = ()

    def share(self, ignored: Collection[str] = ()) -> float:
        """The share of the MACs of layers with weights that is reached, without `ignored` ones."""
        costs = self._weighted(ignored)
        reached = sum(cost.macs for cost in costs if cost.name in self.layers)
        return reached / max(1, sum(cost.macs for cost in costs)) if costs else 1.0

    def left(self, ignored: Collection[str] = ()) -> list[LayerCost]:
        """The layers with weights that are not reached, the largest first."""
        left = [cost for cost in self._weighted(ignored) if cost.name not in self.layers]
        return sorted(left, key=lambda cost: -cost.macs)

    def _weighted(self, ignored: Collection[str]) -> list[LayerCost]:
        return [
            cost
            for cost in self.costs
            if cost.parameters and cost.macs and not is_within(cost.name, ignored)
        ]


def reach_of_int8(graph: fx.GraphModule, example: Tree, strict: bool = False) -> Reach:
    """What int8 reaches in an exported float graph, which is rewritten on the way."""
    costs = tuple(layer_costs(graph, example))
    slice_splits(graph)
    decompose(graph, strict)
    make_operands_tensors(graph)
    chosen = integer_nodes(graph)
    layers = {layer_of(node) for node in chosen if node.target in _PRODUCTS}
    inside = inner_nodes(chains_of(graph))
    floats = [
        node
        for node in graph.graph.nodes
        if computes(node) and node not in chosen and inside.get(node) not in chosen
    ]
    named = tuple(f"{ops.name_of(node)} ({layer_of(node)})" for node in floats if _is_float(node))
    return Reach(costs, frozenset(layers), named)


def reach_of_weights(graph: fx.GraphModule, example: Tree) -> Reach:
    """What weight-only types reach in an exported float graph."""
    layers = {layer_of(node) for node in weighted_layers(graph).values()}
    return Reach(tuple(layer_costs(graph, example)), frozenset(layers))


def _is_float(node: fx.Node) -> bool:
    value: Any = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return any(isinstance(each, torch.Tensor) and each.is_floating_point() for each in values)


def reach_faults(
    reach: Reach, least: float, ignored: Collection[str], dtype: str, where: str
) -> list[EdgekdError]:
    """A fault if less than the share `least` of the weighted layers' MACs is reached."""
    share = reach.share(ignored)
    if share >= least:
        return []
    total = sum(cost.macs for cost in reach.costs if cost.parameters) or 1
    left = [f"{cost.name} ({cost.kind}, {cost.macs / total:.0%})" for cost in reach.left(ignored)]
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return [
        InputError(
            f"{dtype} would reach {share:.0%} of the multiply-accumulates of layers with weights; "
            f"no quantized form for {', '.join(left[:_SHOWN])}{more}",
            where=f"{where}.least",
            allowed=f"at least {least:.0%}",
            hint=f"set least = {int(share * 100) / 100:g} to accept that, or list what may stay in "
            "float under 'ignore'",
        )
    ]


def strict_faults(reach: Reach, ignored: Collection[str], where: str) -> list[EdgekdError]:
    """A fault if anything stays in float, by layer."""
    if ignored:
        text = "strict leaves nothing in float, but layers are ignored"
        return [InputError(text, where=f"{where}.ignore", hint="remove 'ignore' or 'strict'")]
    if not reach.floats:
        return []
    return [float_fault(reach.floats, where)]


def float_fault(floats: Collection[str], where: str) -> InputError:
    """The refusal of operators in float."""
    shown = list(floats)[:_SHOWN]
    more = f" and {len(floats) - len(shown)} more" if len(floats) > len(shown) else ""
    return InputError(
        f"these operators have no integer form: {', '.join(shown)}{more}",
        where=f"{where}.strict",
        hint="replace them in the network, or remove 'strict'",
    )
