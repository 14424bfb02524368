"""Recognizes pooling, and means and extremes over axes."""

from typing import Any

import torch
from torch import fx

from edgekd.backends.tvm.integers.graph import argument, pair, value_of
from edgekd.backends.tvm.integers.steps import Pooled, Reduced, Step, Value
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops

aten = torch.ops.aten


def _pooled(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = value_of(graph, node.args[0])
    if source is None or len(source.shape) != 4:
        return None
    largest = node.target is aten.max_pool2d.default
    window = pair(node.args[1])
    stride = pair(argument(node, 2, "stride") or window)
    padding = pair(argument(node, 3, "padding", 0))
    dilation = pair(argument(node, 4, "dilation", 1)) if largest else (1, 1)
    if largest and source.grid != result.grid:
        return None  # the largest integer is that of the input's grid
    if not largest and argument(node, 6, "divisor_override") is not None:
        return None
    fits = _fits(source.shape[2:], result.shape[2:], window, stride, padding, dilation)
    if not fits:  # a window beyond the edge, with ceil_mode
        return None
    return Pooled(
        result, layer_of(node), ops.name_of(node), source, "max" if largest else "mean",
        window, stride, padding, dilation,
        counts_padding=bool(largest or argument(node, 5, "count_include_pad", True)),
    )  # fmt: skip


def _fits(plane: Any, output: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> bool:
    return all(
        (size + 2 * around - (wide - 1) * apart - 1) // step + 1 == out
        for size, out, wide, step, around, apart in zip(
            plane, output, window, stride, padding, dilation, strict=True
        )
    )


def _adaptive(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = value_of(graph, node.args[0])
    if source is None or source.constant is not None:
        return None
    spatial, output = source.shape[2:], result.shape[2:]
    if set(output) == {1}:
        axes = tuple(range(2, len(source.shape)))
        return Reduced(result, layer_of(node), ops.name_of(node), source, "mean", axes)
    if len(spatial) != 2 or any(size % out for size, out in zip(spatial, output, strict=True)):
        return None
    height, width = (size // out for size, out in zip(spatial, output, strict=True))
    return Pooled(
        result, layer_of(node), ops.name_of(node), source, "mean",
        (height, width), (height, width), (0, 0),
    )  # fmt: skip


def _mean(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    return _over_axes(graph, node, result, "mean")


def _extreme(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    kind = "max" if node.target is aten.amax.default else "min"
    step = _over_axes(graph, node, result, kind)
    return step if step is not None and step.source.grid == result.grid else None


def _over_axes(graph: fx.GraphModule, node: fx.Node, result: Value, kind: Any) -> Reduced | None:
    source = value_of(graph, node.args[0])
    axes = argument(node, 1, "dim")
    if source is None or source.constant is not None or not axes:
        return None
    axes = [axes] if isinstance(axes, int) else axes
    rank = len(source.shape)
    positive = tuple(sorted(int(axis) % rank for axis in axes))
    return Reduced(result, layer_of(node), ops.name_of(node), source, kind, positive)


RECOGNIZERS = {
    aten.max_pool2d.default: _pooled,
    aten.avg_pool2d.default: _pooled,
    aten.adaptive_avg_pool2d.default: _adaptive,
    aten.adaptive_avg_pool1d.default: _adaptive,
    aten.mean.dim: _mean,
    aten.amax.default: _extreme,
    aten.amin.default: _extreme,
}
