"""Exact rewrites of a quantized graph: fold weights, store biases as int32, shift to uint8."""

import copy
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.constants import (
    add_constant,
    constant_of,
    free_name,
    is_constant,
    merge_equal_weights,
)
from edgekd.quant.second_grids import widen_first_grids

quantized = torch.ops.quantized_decomposed

QUANTIZE = {
    quantized.quantize_per_tensor.default,
    quantized.quantize_per_channel.default,
}
DEQUANTIZE = {
    quantized.dequantize_per_tensor.default,
    quantized.dequantize_per_channel.default,
}


DEQUANTIZE_GROUPS = quantized.dequantize_per_channel_group.default
"""Dequantization of weight-only types: codes (o, k), scales (o, groups)."""


MOST_STEPS = 2**30
"""The largest bias in accumulator steps: half of int32, leaving the other half for the sum."""


def finish(graph: fx.GraphModule) -> fx.GraphModule:
    """The rewrites of every converted graph, calibrated or trained."""
    fold_weights(graph)
    _erase_regrids(graph)
    widen_first_grids(graph)
    store_biases(graph)
    merge_equal_weights(graph)
    graph.graph.eliminate_dead_code()
    finished = fx.GraphModule(graph, graph.graph)
    for parameter in finished.parameters():
        parameter.requires_grad_(False)
    return finished.eval()


def _erase_regrids(graph: fx.GraphModule) -> None:
    """Remove grid changes, which the dequantize and quantize ops around them already express."""
    for node in list(graph.graph.nodes):
        if node.target is ops.REGRID:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def is_weight(node: fx.Node) -> bool:
    """Whether a node quantizes or dequantizes a constant."""
    if node.target in QUANTIZE:
        return is_constant(node.args[0])
    source = node.args[0] if node.args else None
    while isinstance(source, fx.Node) and source.target in QUANTIZE:
        source = source.args[0]
    return node.target in DEQUANTIZE and is_constant(source)


def integers_of(node: Any) -> Any:
    """What a dequantize node reads; any other value itself."""
    dequantizes = isinstance(node, fx.Node) and node.target in DEQUANTIZE
    return node.args[0] if dequantizes else node


def is_layer_weight(node: fx.Node) -> bool:
    """Whether a node quantizes or dequantizes the weight of a convolution or a linear layer.

    Other constants, added to activations or multiplied with them, are quantized like activations.
    """
    if not is_weight(node):
        return False
    users = [
        user
        for each in node.users
        for user in (each.users if each.target in DEQUANTIZE else [each])
    ]
    last = [node, *node.users]
    return any(user.target in ops.WEIGHTED and user.args[1] in last for user in users)


def fold_weights(graph: fx.GraphModule) -> None:
    """Replace each quantized constant by its integers."""
    for node in list(graph.graph.nodes):
        if node.target not in QUANTIZE or not is_constant(node.args[0]):
            continue
        arguments = [constant_of(graph, a) if is_constant(a) else a for a in node.args]
        with torch.no_grad():
            integers = node.target(*arguments)
        replace_node(graph, node, f"{node.args[0].target}_int8".replace(".", "_"), integers)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def store_biases(graph: fx.GraphModule) -> None:
    """Store each bias as int32 with the scale of its accumulator, s_input * s_weight. Integer
    kernels add it like that (Jacob et al. 2018, equation 11), so the reference and every artifact
    have the same bias, and ONNX Runtime fuses the layer.
    """
    layers = _with_bias(graph)
    for _, source, weight, bias in layers:
        _make_room(graph, source, weight, constant_of(graph, bias).detach().double())
    for node, source, weight, bias in layers:
        _store_bias(graph, node, bias, _scale(graph, source) * _scale(graph, weight))
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _with_bias(graph: fx.GraphModule) -> list[tuple[fx.Node, ...]]:
    """The integer layers with a bias: (layer, input, weight, bias)."""
    return [
        (node, *node.args[:3])
        for node in graph.graph.nodes
        if node.target in ops.WEIGHTED and len(node.args) > 2 and is_constant(node.args[2])
        if all(each.target in DEQUANTIZE for each in node.args[:2])
    ]


def _make_room(graph: fx.GraphModule, source: fx.Node, weight: fx.Node, bias: Tensor) -> None:
    """Raise weight scales with which a bias would not fit int32: those of channels whose weights
    are zero or tiny compared with the bias."""
    scale, integers = _scale(graph, weight), constant_of(graph, weight.args[0])  # type: ignore[arg-type]
    least = bias.abs() / (_scale(graph, source).double() * MOST_STEPS)
    if len(scale) == 1:
        least = least.max().reshape(1)
    wider = torch.maximum(scale, least.float())
    if torch.equal(wider, scale):
        return
    share = (scale / wider).view(-1, *[1] * (integers.dim() - 1))
    stem = f"{weight.name}_wider"
    with graph.graph.inserting_before(weight):
        values = add_constant(graph, stem, (integers * share).round().to(integers.dtype))
        scales: Any = float(wider.max())
        if is_constant(weight.args[1]):
            scales = add_constant(graph, f"{stem}_scale", wider)
    weight.args = (values, scales, *weight.args[2:])


def _scale(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    scale = node.args[1]
    if isinstance(scale, fx.Node):
        return constant_of(graph, scale).to(torch.float32).reshape(-1)
    return torch.tensor([scale], dtype=torch.float32)


def _store_bias(graph: fx.GraphModule, layer: fx.Node, bias: fx.Node, scale: Tensor) -> None:
    value = constant_of(graph, bias).detach()
    limit = torch.iinfo(torch.int32).max
    steps = (value.double() / scale.double()).round().clamp(-limit, limit)
    name = f"{layer.name}_bias"
    with graph.graph.inserting_before(layer):
        integers = add_constant(graph, f"{name}_int32", steps.to(torch.int32))
        scales = add_constant(graph, f"{name}_scale", scale.expand(len(value)).contiguous())
        zeros = add_constant(graph, f"{name}_zero", torch.zeros(len(value), dtype=torch.int64))
        restored = graph.graph.call_function(
            quantized.dequantize_per_channel.default,
            (integers, scales, zeros, 0, -limit - 1, limit, torch.int32),
        )
    restored.meta["val"] = bias.meta.get("val")
    layer.replace_input_with(bias, restored)


def on_grid(graph: fx.GraphModule, value: fx.Node, grid: tuple[Any, ...]) -> fx.Node:
    """A value put on a grid (scale, zero point, lowest, highest, type), as floats, at the graph's
    insertion point."""
    integers = graph.graph.call_function(quantized.quantize_per_tensor.default, (value, *grid))
    return graph.graph.call_function(quantized.dequantize_per_tensor.default, (integers, *grid))


def replace_node(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> None:
    """Replace a node by a constant; `name` gets a number if it is taken."""
    with graph.graph.inserting_before(node):
        constant = add_constant(graph, free_name(graph, name), value)
    node.replace_all_uses_with(constant)
    graph.graph.erase_node(node)


def as_uint8(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy whose activations are uint8 on the same grids: every zero point moves by 128.
    Constants that are added to activations or multiplied with them move too, since kernels require
    one type.
    """
    shifted = copy.deepcopy(graph)
    for node in list(shifted.graph.nodes):
        per_tensor = node.target in (
            quantized.quantize_per_tensor.default,
            quantized.dequantize_per_tensor.default,
        )
        if not per_tensor or is_layer_weight(node) or node.args[5] is not torch.int8:
            continue
        source, scale, zero_point, low, high, _ = node.args
        if node.target in DEQUANTIZE and is_constant(source):
            source = _shifted(shifted, node)
        node.args = (source, scale, zero_point + 128, low + 128, high + 128, torch.uint8)
    shifted.graph.eliminate_dead_code()
    shifted.recompile()
    return shifted


def _shifted(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The int8 constant that a node reads, as uint8."""
    source: Any = node.args[0]
    value = (constant_of(graph, source).to(torch.int16) + 128).to(torch.uint8)
    with graph.graph.inserting_before(node):
        return add_constant(graph, free_name(graph, f"{source.target}_uint8"), value)


def dequantized(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """The float values of an integer constant that a dequantize node reads."""
    arguments: tuple[Any, ...] = node.args
    integers, scale = constant_of(graph, arguments[0]).to(torch.float32), arguments[1]
    if not is_constant(scale):
        value: Tensor = (integers - arguments[2]) * scale
        return value
    shape = [1] * integers.dim()
    shape[arguments[3]] = -1
    scales = constant_of(graph, scale).reshape(shape)
    return integers * scales
