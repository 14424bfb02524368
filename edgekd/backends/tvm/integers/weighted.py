"""Recognizes convolutions and linear layers, and folds their scales and zero points."""

from typing import Any

import numpy as np
import torch
from torch import fx

from edgekd.backends.tvm.integers.graph import argument, array_of, pair, value_of
from edgekd.backends.tvm.integers.steps import Value, Weighted
from edgekd.backends.tvm.layers import Layer
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.constants import is_constant
from edgekd.quant.rewrite import DEQUANTIZE

aten = torch.ops.aten


def _convolution(graph: fx.GraphModule, node: fx.Node, result: Value) -> Weighted | None:
    source = value_of(graph, node.args[0])
    if source is None or source.constant is not None:
        return None
    weight = _weight(graph, node.args[1])
    bias = _bias(graph, argument(node, 2, "bias"))
    if weight is None or bias is None:
        return None
    kernel, scale = weight
    if kernel.ndim == 3:
        kernel = kernel[:, :, None]
    if len(source.shape) not in (3, 4):
        return None
    channels, _, height, width = kernel.shape
    groups = argument(node, 6, "groups", 1)
    geometry = Layer(
        kind=_kind(groups, channels, source.shape[1]),
        input=_as_image(source.shape),
        channels=channels,
        kernel=(height, width),
        stride=_in_plane(argument(node, 3, "stride", 1), source, 1),
        padding=_padding(node, source, (height, width)),
        dilation=_in_plane(argument(node, 5, "dilation", 1), source, 1),
        groups=groups,
        dtype=source.grid.dtype,
    )
    turned = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
    return _step(node, source, result, geometry, turned, bias, scale)


def _kind(groups: int, channels: int, inputs: int) -> Any:
    if groups == 1:
        return "convolution"
    return "depthwise" if groups == channels == inputs else "grouped"


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(N, C, H, W), or (N, C, L) as one row, with channels last."""
    n, c, *plane = shape
    h, w = (1, plane[0]) if len(plane) == 1 else plane
    return n, h, w, c


def _in_plane(sizes: Any, source: Value, along: int) -> tuple[int, int]:
    """Two numbers for an image; for a sequence `along` for its one row and the number itself."""
    first, last = pair(sizes)
    return (first, last) if len(source.shape) == 4 else (along, last)


def _padding(node: fx.Node, source: Value, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    given = argument(node, 4, "padding", 0)
    if given == "valid":
        given = 0
    if given == "same":
        dilation = _in_plane(argument(node, 5, "dilation", 1), source, 1)
        total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        top, left = total[0] // 2, total[1] // 2
        return top, left, total[0] - top, total[1] - left
    vertical, horizontal = _in_plane(given, source, 0)
    return vertical, horizontal, vertical, horizontal


def _linear(graph: fx.GraphModule, node: fx.Node, result: Value) -> Weighted | None:
    source = value_of(graph, node.args[0])
    if source is None or source.constant is not None or not 2 <= len(source.shape) <= 4:
        return None
    weight = _weight(graph, node.args[1])
    bias = _bias(graph, argument(node, 2, "bias"))
    if weight is None or bias is None:
        return None
    kernel, scale = weight
    *rows, inputs = source.shape
    rows = [rows[0] * rows[1]] if len(rows) == 2 else rows
    geometry = Layer(
        kind="linear",
        input=(*[1] * (3 - len(rows)), *rows, inputs),  # type: ignore[arg-type]
        channels=kernel.shape[0],
        dtype=source.grid.dtype,
    )
    turned = np.ascontiguousarray(kernel.T)[np.newaxis, np.newaxis]
    return _step(node, source, result, geometry, turned, bias, scale)


def _step(
    node: fx.Node,
    source: Value,
    result: Value,
    geometry: Layer,
    weight: np.ndarray,
    bias: np.ndarray,
    scale: np.ndarray,
) -> Weighted:
    steps = np.broadcast_to(scale * source.grid.scale, geometry.channels)
    return Weighted(
        result=result,
        layer=layer_of(node),
        op=ops.name_of(node),
        source=source,
        geometry=geometry,
        weight=weight,
        bias=np.rint(bias / steps).astype(np.int64),
        scale=steps,
    )


def _weight(graph: fx.GraphModule, node: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Symmetric int8 weights with their scales, of each output or of all."""
    if not isinstance(node, fx.Node) or node.target not in DEQUANTIZE:
        return None
    if not is_constant(node.args[0]):
        return None
    integers = array_of(graph, node.args[0])
    scale, zero = node.args[1:3]
    per_channel = is_constant(scale)
    if integers.dtype != np.int8 or (per_channel and node.args[3] != 0):
        return None
    zeros = array_of(graph, zero) if per_channel else np.array(zero)
    if zeros.any():
        return None
    scales = array_of(graph, scale) if per_channel else np.array(scale)
    return integers, scales.reshape(-1).astype(np.float64)


def _bias(graph: fx.GraphModule, node: Any) -> np.ndarray | None:
    """A bias's real values, zero where there is none; None for one that is computed."""
    if node is None:
        return np.zeros(1)
    if is_constant(node):
        return array_of(graph, node).astype(np.float64)
    if not isinstance(node, fx.Node) or node.target not in DEQUANTIZE:
        return None
    if not (is_constant(node.args[0]) and is_constant(node.args[1])):
        return None
    return array_of(graph, node.args[0]) * array_of(graph, node.args[1]).astype(np.float64)


RECOGNIZERS = {
    aten.conv1d.default: _convolution,
    aten.conv1d.padding: _convolution,
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.linear.default: _linear,
}
