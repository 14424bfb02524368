"""Averages over windows, whose results may be much smaller than what they read.

Integer kernels give an average on the grid of their input. Where only a few of its levels are left,
a depthwise convolution with equal weights gives the same values on a grid of their own.
"""

import math
from typing import Any

import torch
from torch import fx

from edgekd.quant.inserting import insert_call, insert_constant, replace_by
from edgekd.quant.ops import each_dimension

aten = torch.ops.aten

FEWEST_LEVELS = 64
"""The levels of the input's 256 that an average must at least use."""

_CONVOLUTIONS: dict[Any, Any] = {
    aten.avg_pool1d.default: aten.conv1d.default,
    aten.avg_pool2d.default: aten.conv2d.default,
}
_NAMES = ("x", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor")


def averages(graph: fx.GraphModule) -> list[fx.Node]:
    """The average pools that a convolution can compute: without rows that count for less."""
    return [node for node in graph.graph.nodes if node.target in _CONVOLUTIONS and _is_even(node)]


def convolve(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace an average pool by a convolution with equal weights for each channel."""
    given = _arguments(node)
    x = given["x"]
    _, channels, *sizes = x.meta["val"].shape
    rank = len(sizes)
    kernel = each_dimension(given["kernel_size"], rank)
    weight = torch.full((channels, 1, *kernel), 1.0 / math.prod(kernel))
    stride = each_dimension(given["stride"] or given["kernel_size"], rank)
    padding = each_dimension(given["padding"], rank)
    with graph.graph.inserting_before(node):
        equal = insert_constant(graph, f"{node.name}_weight", weight, node)
        arguments = (x, equal, None, stride, padding, [1] * rank, channels)
        replace_by(node, insert_call(graph, _CONVOLUTIONS[node.target], arguments, node))


def _is_even(node: fx.Node) -> bool:
    given = _arguments(node)
    x = given["x"].meta["val"]
    rank = 1 if node.target is aten.avg_pool1d.default else 2
    padded = any(each_dimension(given["padding"], rank)) and not given["count_include_pad"]
    plain = not given["ceil_mode"] and given["divisor"] is None and not padded
    return plain and x.dim() == rank + 2 and isinstance(x.shape[1], int)


def _arguments(node: fx.Node) -> dict[str, Any]:
    names = {"self": "x", "divisor_override": "divisor"}
    given = {names.get(key, key): value for key, value in node.kwargs.items()}
    defaults: dict[str, Any] = {
        "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True, "divisor": None
    }  # fmt: skip
    return {**defaults, **dict(zip(_NAMES, node.args, strict=False)), **given}
