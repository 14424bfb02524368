"""Recognizes functions of one value, which become tables, and arithmetic of two."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from edgekd.backends.tvm.integers.graph import argument, value_of
from edgekd.backends.tvm.integers.steps import Arithmetic, Joined, Reshaped, Step, Table, Value
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops

aten = torch.ops.aten

TABULATED = {
    *(ops.FUSED | ops.FUNCTIONS) - {aten.prelu.default},
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.hardsigmoid.default,
    aten.hardsigmoid_.default,
    aten.sigmoid.default,
    aten.sigmoid_.default,
    aten.silu.default,
    aten.silu_.default,
    aten.tanh.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
}
"""Functions of one value and of numbers."""

ARITHMETIC: dict[Any, Any] = {
    aten.add.Tensor: "add",
    aten.add_.Tensor: "add",
    aten.sub.Tensor: "sub",
    aten.mul.Tensor: "mul",
    aten.mul_.Tensor: "mul",
}


def table(
    source: Value, result: Value, layer: str, op: str, function: Callable[[torch.Tensor], Any]
) -> Table:
    """The step that looks up `function` of the real values."""
    grid = source.grid
    limits = np.iinfo(grid.dtype)
    integers = np.arange(limits.min, limits.max + 1)
    with torch.no_grad():
        values = function(torch.from_numpy(grid.values(integers)))
    entries = result.grid.integers(values.numpy())
    return Table(result, layer, op, source, entries)


def regridded(source: Value, result: Value, layer: str) -> Step:
    """The step that puts a quantized tensor on another grid, or keeps it if that is the same."""
    if source.grid == result.grid and source.constant is None:
        return Reshaped(result, layer, "quantize", source)
    return table(source, result, layer, "quantize", lambda values: values)


def _function(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = value_of(graph, node.args[0])
    others = [*node.args[1:], *node.kwargs.values()]
    if source is None or source.constant is not None:
        return None
    if any(isinstance(each, fx.Node) for each in others):
        return None
    target: Any = node.target
    return table(
        source, result, layer_of(node), ops.name_of(node),
        lambda values: target(values.clone(), *node.args[1:], **node.kwargs),
    )  # fmt: skip


def _arithmetic(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    if argument(node, 2, "alpha", 1) != 1:
        return None
    if isinstance(node.args[1], int | float):
        return _function(graph, node, result)
    left, right = (value_of(graph, each) for each in node.args[:2])
    if left is None or right is None:
        return None
    if left.constant is not None and right.constant is not None:
        return None
    kind = ARITHMETIC[node.target]
    return Arithmetic(result, layer_of(node), ops.name_of(node), left, right, kind)


def _joined(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    parts: Any = node.args[0]
    values = [value_of(graph, each) for each in parts]
    sources = [each for each in values if each is not None]
    if len(sources) != len(values) or any(each.constant is not None for each in sources):
        return None
    if any(each.grid != result.grid for each in sources):
        return None
    axis = int(argument(node, 1, "dim", 0)) % len(result.shape)
    return Joined(result, layer_of(node), ops.name_of(node), tuple(sources), axis)


RECOGNIZERS = {
    **dict.fromkeys(TABULATED, _function),
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    aten.cat.default: _joined,
}
