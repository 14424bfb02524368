"""Adaptive max pooling over equal windows is plain max pooling, which every runtime has."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def rewrite_adaptive_max(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace a maximum over equal windows by max pooling, which every runtime has."""
    x: Any = node.args[0]
    wanted: Any = node.args[1]
    rank = 2 if node.target is aten.adaptive_max_pool2d.default else 1
    sizes = x.meta["val"].shape[-rank:]
    for user in [user for user in node.users if not user.users]:
        graph.graph.erase_node(user)
    values = list(node.users)
    if any(user.args[1] != 0 for user in values) or not all(
        isinstance(size, int) for size in sizes
    ):
        return
    if any(size % count for size, count in zip(sizes, wanted, strict=True)):
        return
    window = [size // count for size, count in zip(sizes, wanted, strict=True)]
    pool: Any = aten.max_pool2d.default if rank == 2 else aten.max_pool1d.default
    for user in values:
        with graph.graph.inserting_before(user):
            pooled = graph.graph.call_function(pool, (x, window, window))
        pooled.meta.update(user.meta)
        user.replace_all_uses_with(pooled)
        graph.graph.erase_node(user)
    graph.graph.erase_node(node)
