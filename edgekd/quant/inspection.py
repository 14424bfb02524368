"""Finds what a quantized graph computes in integers and what it leaves in float."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx, nn

from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.chains import Chain, chains_of
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE
from edgekd.values.artifact import Precision
from edgekd.values.tree import leaves

_INTEGER = ops.WEIGHTED | ops.FUSED | ops.REGRIDDED | ops.SHARED | ops.JOINED | ops.LOOKUPS
"""Operators for which runtimes have integer kernels; all others compute in float."""

_QUIET = {torch.ops.aten.sym_size.int, torch.ops.aten._assert_tensor_metadata.default}


def float_islands(module: nn.Module) -> list[str]:
    """Each operator that reads or writes floats, as 'aten.softmax (softmax)', in order."""
    graph = cast(fx.GraphModule, module)
    inside = {node for chain in integer_chains(graph) for node in chain.nodes}
    return [
        f"{ops.name_of(node)} ({layer_of(node)})"
        for node in graph.graph.nodes
        if computes(node) and node not in inside and not _is_integer(node) and _has_floats(node)
    ]


def _has_floats(node: fx.Node) -> bool:
    """Whether a node reads or gives anything but whole numbers and truth values."""
    values = [each.meta.get("val") for each in (node, *node.all_input_nodes)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return not tensors or any(each.is_floating_point() or each.is_complex() for each in tensors)


def integer_chains(graph: fx.GraphModule) -> list[Chain]:
    """The functions of one value between two grids of a quantized graph, in order."""
    found = chains_of(graph)
    return [
        found[node]
        for node in graph.graph.nodes
        if node in found
        if found[node].source.target in DEQUANTIZE
        if node.users and all(user.target in QUANTIZE for user in node.users)
    ]


def functions_of_one_value(module: nn.Module) -> list[str]:
    """The functions between two grids that not every runtime has an integer kernel for, as
    'aten.gelu (gelu)', in order."""
    graph = cast(fx.GraphModule, module)
    inside = {node for chain in integer_chains(graph) for node in chain.nodes}
    return [
        f"{ops.name_of(node)} ({layer_of(node)})"
        for node in graph.graph.nodes
        if node in inside or (node.target in ops.FUNCTIONS and _is_integer(node))
    ]


def computes(node: fx.Node) -> bool:
    """Whether a node is an operator of the model, and not quantization or bookkeeping."""
    return (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and node.target not in QUANTIZE | DEQUANTIZE | _QUIET
        and _gives_tensors(node)
    )


def _gives_tensors(node: fx.Node) -> bool:
    """Whether a node's result is a tensor, or several, as of a split or a recurrent layer."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        return any(isinstance(part, torch.Tensor) for part in value)
    return isinstance(value, torch.Tensor)


def _is_integer(node: fx.Node) -> bool:
    """Whether a node has an integer kernel and is between dequantize and quantize ops; a fused
    clamp counts with its operator."""
    if node.target not in _INTEGER or any(map(_is_off_grid, _read_by_function(node))):
        return False
    if node.target in ops.WEIGHTED and node.args[1].target not in DEQUANTIZE:  # type: ignore[union-attr, operator]
        return False
    inputs = [source for source in node.all_input_nodes if _is_tensor(source)]
    reads = all(
        source.target in DEQUANTIZE or (node.target in ops.FUSED and source.target in ops.FUSABLE)
        for source in inputs
    )
    writes = all(
        user.target in QUANTIZE or (node.target in ops.FUSABLE and user.target in ops.FUSED)
        for user in node.users
    )
    return reads and writes


def _read_by_function(node: fx.Node) -> list[fx.Node]:
    return node.all_input_nodes if node.target in ops.FUNCTIONS else []


def _is_off_grid(node: fx.Node) -> bool:
    """Whether a node gives whole or complex numbers, which have no grid."""
    value = node.meta.get("val")
    quantizes = node.target in QUANTIZE | DEQUANTIZE
    return isinstance(value, torch.Tensor) and not quantizes and not value.is_floating_point()


def _is_tensor(node: fx.Node) -> bool:
    """Whether a node is a tensor of floats, but not a constant."""
    value = node.meta.get("val")
    return node.op != "get_attr" and isinstance(value, torch.Tensor) and value.is_floating_point()


def activation_bits(module: nn.Module) -> frozenset[int]:
    """The widths of a quantized graph's activations: 8, 16 or both."""
    graph = cast(fx.GraphModule, module)
    kinds = {
        node.args[-1]
        for node in graph.graph.nodes
        if node.target in QUANTIZE and node.args[-1] is not torch.int32
    }
    return frozenset(16 if kind is torch.int16 else 8 for kind in kinds)


def integer_precision(module: nn.Module) -> Precision:
    """What a file of a quantized graph is called, by the widths of its activations."""
    bits = activation_bits(module)
    if 16 not in bits:
        return "int8"
    return "int16x8" if bits == {16} else "int8+int16"


def wide_layers(graph: fx.GraphModule) -> list[str]:
    """The layers with weights that read 16 bits, in order."""
    found: dict[str, None] = {}
    for node in graph.graph.nodes:
        source: Any = node.args[0] if node.target in ops.WEIGHTED else None
        if source is not None and source.target in DEQUANTIZE and source.args[-1] is torch.int16:
            found[layer_of(node)] = None
    return list(found)


def output_scale(module: nn.Module, index: int = 0) -> float | None:
    """The scale of a quantized graph's output, the first or another; None for a float output."""
    if not isinstance(module, fx.GraphModule):
        return None
    output = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    outputs = leaves(output.args)
    node: Any = outputs[index] if index < len(outputs) else None
    if not isinstance(node, fx.Node) or node.target not in DEQUANTIZE:
        return None
    scale = node.args[1]
    return float(scale) if isinstance(scale, float) else None


def counted(islands: Sequence[str]) -> str:
    """'softmax (head), 2 x gelu (mlp, ...)': at most four kinds of operators, by their layers."""
    layers: dict[str, list[str]] = {}
    for island in islands:
        kind, _, layer = island.removeprefix("aten.").partition(" ")
        layers.setdefault(kind, []).append(layer.strip("()"))
    shown = [
        f"{kind} ({names[0]})" if len(names) == 1 else f"{len(names)} x {kind} ({names[0]}, ...)"
        for kind, names in list(layers.items())[:4]
    ]
    rest = len(layers) - len(shown)
    return ", ".join(shown) + (f" and {rest} other kinds" if rest else "")
