"""`x[mask] = number` is a choice between two values, which every runtime has."""

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def rewrite_masked_put(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace an `index_put` of one number where a mask holds, whose first dimensions are x's."""
    x, places, value, *accumulate = node.args
    if any(accumulate) or node.kwargs or not isinstance(places, (list, tuple)):
        return
    if len(places) != 1 or not isinstance(places[0], fx.Node) or not isinstance(value, fx.Node):
        return
    mask: Any = places[0]
    condition, number = mask.meta["val"], value.meta["val"]
    if condition.dtype is not torch.bool or not isinstance(number, Tensor) or number.numel() != 1:
        return
    missing = x.meta["val"].dim() - condition.dim()  # type: ignore[union-attr]
    with graph.graph.inserting_before(node):
        for _ in range(missing):
            mask = graph.graph.call_function(aten.unsqueeze.default, (mask, -1))
            condition = condition.unsqueeze(-1)
            mask.meta.update({**node.meta, "val": condition})
        chosen = graph.graph.call_function(aten.where.self, (mask, value, x))
    chosen.meta.update(node.meta)
    node.replace_all_uses_with(chosen)
    graph.graph.erase_node(node)
