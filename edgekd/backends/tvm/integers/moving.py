"""Recognizes operators that move numbers without computing, and products of two activations."""

from typing import Any

import torch
from torch import fx

from edgekd.backends.tvm.integers.graph import argument, value_of
from edgekd.backends.tvm.integers.steps import (
    Multiplied,
    Padded,
    Permuted,
    Reshaped,
    Sliced,
    Step,
    Value,
)
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops

aten = torch.ops.aten


def _moved(graph: fx.GraphModule, node: fx.Node, result: Value) -> Value | None:
    """The tensor that an operator moves, if it stays on its grid."""
    source = value_of(graph, node.args[0])
    if source is None or source.constant is not None or source.grid != result.grid:
        return None
    return source


def _reshaped(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = _moved(graph, node, result)
    if source is None:
        return None
    return Reshaped(result, layer_of(node), ops.name_of(node), source)


def _permuted(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = _moved(graph, node, result)
    if source is None:
        return None
    rank = len(source.shape)
    numbers: Any = node.args[1:]
    if node.target is aten.permute.default:
        order = [int(axis) % rank for axis in numbers[0]]
    else:
        order = list(range(rank))
        one, other = int(numbers[0]) % rank, int(numbers[1]) % rank
        order[one], order[other] = order[other], order[one]
    return Permuted(result, layer_of(node), ops.name_of(node), source, tuple(order))


def _sliced(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = _moved(graph, node, result)
    if source is None:
        return None
    rank = len(source.shape)
    begins, steps = [0] * rank, [1] * rank
    axis = int(argument(node, 1, "dim", 0)) % rank
    size = source.shape[axis]
    selects = node.target is aten.select.int
    if selects:
        begins[axis] = int(argument(node, 2, "index")) % size
    else:
        begin = argument(node, 2, "start") or 0
        begins[axis] = min(begin + size if begin < 0 else begin, size)
        steps[axis] = int(argument(node, 4, "step", 1))
    return Sliced(
        result, layer_of(node), ops.name_of(node), source,
        tuple(begins), tuple(steps), axis if selects else None,
    )  # fmt: skip


def _padded(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    source = _moved(graph, node, result)
    if source is None:
        return None
    constant_value = node.target is aten.constant_pad_nd.default
    if not constant_value and argument(node, 2, "mode", "constant") != "constant":
        return None
    fill = argument(node, 2 if constant_value else 3, "value", 0) or 0
    given: Any = list(argument(node, 1, "pad"))
    if min(given) < 0:
        return None
    widths = [(0, 0)] * len(source.shape)
    for place in range(len(given) // 2):
        widths[-1 - place] = (given[2 * place], given[2 * place + 1])
    grid = source.grid
    integer = min(max(round(fill / grid.scale) + grid.zero_point, grid.low), grid.high)
    return Padded(result, layer_of(node), ops.name_of(node), source, tuple(widths), integer)


def _multiplied(graph: fx.GraphModule, node: fx.Node, result: Value) -> Step | None:
    left, right = (value_of(graph, each) for each in node.args[:2])
    if left is None or right is None or left.constant is not None or right.constant is not None:
        return None
    if len(left.shape) != len(right.shape) or left.shape[:-2] != right.shape[:-2]:
        return None
    return Multiplied(result, layer_of(node), ops.name_of(node), left, right)


RECOGNIZERS = {
    aten.flatten.using_ints: _reshaped,
    aten.unflatten.int: _reshaped,
    aten.view.default: _reshaped,
    aten.reshape.default: _reshaped,
    aten.squeeze.default: _reshaped,
    aten.squeeze.dim: _reshaped,
    aten.squeeze.dims: _reshaped,
    aten.unsqueeze.default: _reshaped,
    aten.contiguous.default: _reshaped,
    aten.clone.default: _reshaped,
    aten.permute.default: _permuted,
    aten.transpose.int: _permuted,
    aten.slice.Tensor: _sliced,
    aten.select.int: _sliced,
    aten.constant_pad_nd.default: _padded,
    aten.pad.default: _padded,
    aten.matmul.default: _multiplied,
    aten.bmm.default: _multiplied,
}
