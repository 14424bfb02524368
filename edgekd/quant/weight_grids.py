"""The integer grids of layers' weights: the largest weight maps to the largest integer. scale =
max|w| / limit for each output channel (or for the tensor), where `limit` is 127, or 63 if the
target's kernels are exact for seven bits only.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.errors import ToolError
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.quantizer import weight_limit
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE
from edgekd.values.target import Scheme

quantized = torch.ops.quantized_decomposed

_SMALLEST = torch.finfo(torch.float32).eps
"""The scale of a channel whose weights are all zero or almost zero."""


def fit_weights(graph: fx.GraphModule, scheme: Scheme) -> None:
    """Give every quantized layer weight the scale that its largest value needs, whatever range was
    chosen before. Raises `ToolError` naming the layer if a weight would still saturate.
    """
    limit = weight_limit(scheme)
    for layer in graph.graph.nodes:
        if layer.target not in ops.WEIGHTED:
            continue
        for node in _grid_ops(layer.args[1]):
            _fit(graph, node, limit)
        _check(graph, layer, limit)
    graph.recompile()


def _grid_ops(weight: Any) -> list[fx.Node]:
    """The dequantize and quantize ops between a layer and its float weight; none for a float
    layer."""
    if not isinstance(weight, fx.Node) or weight.target not in DEQUANTIZE:
        return []
    source = weight.args[0]
    if not isinstance(source, fx.Node) or source.target not in QUANTIZE:
        return []
    return [weight, source] if is_constant(source.args[0]) else []


def _fit(graph: fx.GraphModule, node: fx.Node, limit: int) -> None:
    source: Any = node.args[0]
    weight = constant_of(graph, source if is_constant(source) else source.args[0]).detach()
    scale: Any = node.args[1]
    arguments: tuple[Any, ...] = node.args
    if is_constant(scale):
        axis = arguments[3]
        others = [dim for dim in range(weight.dim()) if dim != axis]
        fitted = _scale(weight.abs().amax(others), limit)
        constant_of(graph, scale).copy_(fitted)
    else:
        scale = float(_scale(weight.abs().max(), limit))
    node.args = (arguments[0], scale, *arguments[2:-3], -limit, limit, arguments[-1])


def _scale(largest: Tensor, limit: int) -> Tensor:
    return (largest.float() / limit).clamp_min(_SMALLEST)


def _check(graph: fx.GraphModule, layer: fx.Node, limit: int) -> None:
    """Raise `ToolError` if a weight is more than half a step beyond the ends of its grid."""
    for node in _grid_ops(layer.args[1])[1:]:
        weight = constant_of(graph, node.args[0]).detach().abs()  # type: ignore[arg-type]
        scale: Any = node.args[1]
        if is_constant(scale):
            scale = constant_of(graph, scale).reshape(-1, *[1] * (weight.dim() - 1))
        over = float((weight / scale).max())
        if over > limit + 0.5:
            raise ToolError(
                f"layer '{layer_of(layer)}': weights of up to {over:.4g} steps on a grid that ends "
                f"at {limit}",
                where="quantize",
            )
