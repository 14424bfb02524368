"""A `gather` with the same places everywhere picks along one dimension.

That is an `index_select`, which has an integer kernel in every runtime. LiteRT's converter lays
expanded places out wrongly.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by

aten = torch.ops.aten

_EXPANDS = {aten.expand.default, aten.expand_as.default}


def gathers_to_selects(graph: fx.GraphModule) -> None:
    """Rewrite every gather whose constant places differ along its own dimension alone."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target is not aten.gather.default:
            continue
        x, dim, index, *_ = node.args
        places = _places(graph, index, dim)
        if places is None or tuple(node.meta["val"].shape) != _shape(x, dim, len(places)):
            continue
        with graph.graph.inserting_before(node):
            constant = insert_constant(graph, f"{node.name}_places", places, node)
            selected = insert_call(graph, aten.index_select.default, (x, dim, constant), node)
        replace_by(node, selected)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _places(graph: fx.GraphModule, index: Any, dim: int) -> Tensor | None:
    while isinstance(index, fx.Node) and index.target in _EXPANDS:
        index = index.args[0]
    if not isinstance(index, fx.Node) or not is_constant(index):
        return None
    value = constant_of(graph, index)
    first = value.movedim(dim, 0).reshape(value.shape[dim], -1)
    return first[:, 0].clone() if bool((first == first[:, :1]).all()) else None


def _shape(x: fx.Node, dim: int, count: int) -> tuple[Any, ...]:
    """The shape of x with that many places along a dimension."""
    sizes = list(x.meta["val"].shape)
    sizes[dim] = count
    return tuple(sizes)
