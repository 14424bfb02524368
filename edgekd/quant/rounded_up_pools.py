"""Max pools that round their number of windows up (`ceil_mode`), padded by an operator before them.

LiteRT's converter writes the size that PyTorch has into the file, and windows that give another one
if height and width don't need the same rounding.
"""

from typing import Any

import torch
from torch import fx

from edgekd.quant.ops import each_dimension
from edgekd.quant.rewrite import DEQUANTIZE, on_grid
from edgekd.quant.unfolding import value_of

aten = torch.ops.aten

_DIMENSIONS = {aten.max_pool1d.default: 1, aten.max_pool2d.default: 2}
_NAMES = ("x", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
_DEFAULTS: dict[str, Any] = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}


def pad_rounded_up(graph: fx.GraphModule) -> None:
    """Pad what max pools read, as far as their last windows reach, with what is never the only
    largest value: its last row and column, or -inf."""
    for node in list(graph.graph.nodes):
        count = _DIMENSIONS.get(node.target)
        if count is None:
            continue
        given = {**_DEFAULTS, **dict(zip(_NAMES, node.args, strict=False)), **node.kwargs}
        if given["ceil_mode"]:
            _pad(graph, node, given, count)
    graph.recompile()


def _pad(graph: fx.GraphModule, node: fx.Node, given: dict[str, Any], count: int) -> None:
    kernel = each_dimension(given["kernel_size"], count)
    stride = each_dimension(given["stride"] or kernel, count)
    padding, dilation = (each_dimension(given[name], count) for name in ("padding", "dilation"))
    x = given["x"]
    before, after = value_of(x).shape[-count:], value_of(node).shape[-count:]
    ends = [
        (pad, max(pad, (windows - 1) * step + gap * (size - 1) + 1 - pad - length))
        for size, step, pad, gap, length, windows in zip(
            kernel, stride, padding, dilation, before, after, strict=True
        )
    ]
    if all(
        pad == 0 and windows == -(-length // step) and end <= 1
        for pad, end, length, step, windows in zip(
            padding, (end for _, end in ends), before, stride, after, strict=True
        )
    ):
        return  # TFLite's own "same" padding, which the converter finds
    with graph.graph.inserting_before(node):
        flat = [rows for pair in reversed(ends) for rows in pair]
        if count == 2 and dilation == [1, 1]:  # a window that leaves the image holds its last row
            padded = graph.graph.call_function(aten.replication_pad2d.default, (x, flat))
        else:
            arguments = (x, flat, float("-inf"))
            padded = graph.graph.call_function(aten.constant_pad_nd.default, arguments)
        padded.meta.update({key: value for key, value in node.meta.items() if key != "val"})
        if x.target in DEQUANTIZE:
            padded = on_grid(graph, padded, x.args[1:])
    node.args, node.kwargs = (padded, kernel, stride, [0] * count, dilation), {}
