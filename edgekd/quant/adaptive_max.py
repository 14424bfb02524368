"""Adaptive max pooling as plain max pooling over equal windows, which every runtime has, or as the
maximum of each window where they differ in size."""

from typing import Any

import torch
from torch import fx

from edgekd.quant.inserting import insert_call

aten = torch.ops.aten

MOST_WINDOWS = 16
"""More windows of different sizes along one dimension stay one operator."""


def rewrite_adaptive_max(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `adaptive_max_pool1d` or `2d`, unless its indices are read or sizes are open."""
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
    even = not any(size % count for size, count in zip(sizes, wanted, strict=True))
    if not even and max(wanted) > MOST_WINDOWS:
        return
    for user in values:
        with graph.graph.inserting_before(user):
            pooled = _pooled(graph, x, wanted, user) if even else _joined(graph, x, wanted, user)
        pooled.meta.update(user.meta)
        user.replace_all_uses_with(pooled)
        graph.graph.erase_node(user)
    graph.graph.erase_node(node)


def _pooled(graph: fx.GraphModule, x: fx.Node, wanted: Any, like: fx.Node) -> fx.Node:
    """Max pooling over equal windows."""
    sizes = x.meta["val"].shape[-len(wanted) :]
    window = [size // count for size, count in zip(sizes, wanted, strict=True)]
    pool: Any = aten.max_pool2d.default if len(wanted) == 2 else aten.max_pool1d.default
    return insert_call(graph, pool, (x, window, window), like)


def _joined(graph: fx.GraphModule, x: fx.Node, wanted: Any, like: fx.Node) -> fx.Node:
    """The maximum of each window, one dimension after the other."""
    for dim, count in zip(range(-len(wanted), 0), wanted, strict=True):
        size = x.meta["val"].shape[dim]
        parts = []
        for start, end in windows(size, count):
            part = insert_call(graph, aten.slice.Tensor, (x, dim, start, end), like)
            parts.append(insert_call(graph, aten.amax.default, (part, [dim], True), like))
        x = insert_call(graph, aten.cat.default, (parts, dim), like) if count > 1 else parts[0]
    return x


def windows(size: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` windows over `size` values starts and ends: window i from
    floor(i size / count) to ceil((i + 1) size / count), as in PyTorch."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
