"""Adaptive average pooling as average pooling over the same windows, whose integer kernels give
their results on the grid of their input. Runtimes have none for the adaptive one, or pool on a grid
that clips the input."""

from typing import Any

import torch
from torch import fx

from edgekd.quant.adaptive_max import MOST_WINDOWS, windows
from edgekd.quant.inserting import insert_call

aten = torch.ops.aten


def averaged(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """What replaces an adaptive average of images (N, C, H, W) or sequences (N, C, L); None where a
    size is open or there are too many windows of different sizes."""
    x: fx.Node = node.args[0]  # type: ignore[assignment]
    rank = 2 if node.target is aten.adaptive_avg_pool2d.default else 1
    wanted: Any = node.args[1]
    sizes = x.meta["val"].shape[-rank:]
    if x.meta["val"].dim() != rank + 2 or not all(isinstance(size, int) for size in sizes):
        return None
    if list(wanted) == [1]:  # which runtimes have a mean for
        return None
    if rank == 2 and list(wanted) == [1, 1]:
        # A mean, which is exported the same way for every layout of the images in memory.
        return insert_call(graph, aten.mean.dim, (x, [2, 3], True), node)
    uneven = [size % count != 0 for size, count in zip(sizes, wanted, strict=True)]
    if any(odd and count > MOST_WINDOWS for odd, count in zip(uneven, wanted, strict=True)):
        return None
    whole = [
        1 if odd else size // count for size, count, odd in zip(sizes, wanted, uneven, strict=True)
    ]
    x = _pooled(graph, x, whole, node)
    for axis, (size, count, odd) in enumerate(zip(sizes, wanted, uneven, strict=True)):
        if odd:
            x = _by_windows(graph, x, axis - rank, windows(size, count), node)
    return x


def _by_windows(
    graph: fx.GraphModule, x: fx.Node, dim: int, places: list[tuple[int, int]], like: fx.Node
) -> fx.Node:
    rank = x.meta["val"].dim() - 2
    parts = []
    for start, end in places:
        part = insert_call(graph, aten.slice.Tensor, (x, dim, start, end), like)
        kernel = [1] * rank
        kernel[dim] = end - start
        parts.append(_pooled(graph, part, kernel, like))
    return insert_call(graph, aten.cat.default, (parts, dim), like)


def _pooled(graph: fx.GraphModule, x: fx.Node, kernel: list[int], like: fx.Node) -> fx.Node:
    if max(kernel) == 1:
        return x
    pool: Any = aten.avg_pool2d.default if len(kernel) == 2 else aten.avg_pool1d.default
    return insert_call(graph, pool, (x, kernel, kernel), like)
