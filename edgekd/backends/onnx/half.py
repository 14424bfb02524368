"""A float graph in half precision, with float32 inputs and outputs.

What ids are computed from stays in float32: half precision holds whole numbers up to 2,048 alone.
"""

import copy
import math
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quant.regions import exact_nodes

aten = torch.ops.aten

LARGEST, LEAST = torch.finfo(torch.float16).max, 2.0**-24
"""The largest number of half precision, and the least above 0."""


def half_precision(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy of an exported float graph whose constants and values are in half precision."""
    half = copy.deepcopy(graph)
    for node in list(half.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:  # of the dtypes before
            half.graph.erase_node(node)
    exact = exact_nodes(half)
    single = {node for node in half.graph.nodes if node.op == "placeholder"} | exact
    _halve_constants(half, single)
    casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    for node in list(half.graph.nodes):
        if node.op not in ("call_function", "output"):
            continue
        if node.target is operator.getitem and node.args[0] not in single:
            single.discard(node)
        wanted = _dtype_in(node, exact, single)
        for source in node.all_input_nodes:
            have = torch.float32 if source in single else torch.float16
            if _is_float(source) and isinstance(source.meta["val"], Tensor) and have != wanted:
                node.replace_input_with(source, _cast(half, source, wanted, casts))
        if _takes_default_dtype(node):
            node.kwargs = {**node.kwargs, "dtype": wanted}
        node.args = _with_dtype(node.args, wanted)
        node.kwargs = _with_dtype(node.kwargs, wanted)
        if wanted == torch.float16 and _is_float(node):
            node.args = fx.node.map_aggregate(node.args, _in_reach)
            node.kwargs = fx.node.map_aggregate(node.kwargs, _in_reach)
    half.recompile()
    return half


def _dtype_in(node: fx.Node, exact: set[fx.Node], single: set[fx.Node]) -> torch.dtype:
    """The dtype of the floats that a node reads and makes; conditions compare in float32 where one
    side has it."""
    if node.op == "output" or node in exact:
        return torch.float32
    in_single = not _is_float(node) and any(each in single for each in node.all_input_nodes)
    return torch.float32 if in_single else torch.float16


def _is_float(node: fx.Node) -> bool:
    """Whether a node's result has a float tensor in it."""
    value = node.meta.get("val")
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(part, Tensor) and part.is_floating_point() for part in parts)


def _in_reach(argument: Any) -> Any:
    """A number as half precision can hold it: a mask's -1e9 is its least number, and an epsilon
    that a division needs does not become 0."""
    if not isinstance(argument, float) or argument == 0.0 or not math.isfinite(argument):
        return argument
    return math.copysign(min(max(abs(argument), LEAST), LARGEST), argument)


def _takes_default_dtype(node: fx.Node) -> bool:
    """Whether a node makes floats from no tensor, as `torch.zeros` does, and names no dtype."""
    tensors = (isinstance(each.meta.get("val"), Tensor) for each in node.all_input_nodes)
    if node.op != "call_function" or any(tensors) or not _is_float(node):
        return False
    schema = getattr(node.target, "_schema", None)
    arguments = () if schema is None else schema.arguments
    return "dtype" not in node.kwargs and any(each.name == "dtype" for each in arguments)


def _halve_constants(graph: fx.GraphModule, single: set[fx.Node]) -> None:
    """Store each constant in half precision, unless ids are computed from it."""
    reads = [node for node in graph.graph.nodes if node.op == "get_attr" and _is_float(node)]
    kept = {node.target for node in reads if node in single}
    single |= {node for node in reads if node.target in kept}
    for name in {str(node.target) for node in reads} - {str(each) for each in kept}:
        owner_name, _, key = name.rpartition(".")
        owner = graph.get_submodule(owner_name)
        value = getattr(owner, key).detach()
        value = value.where(value.isinf(), value.clamp(-LARGEST, LARGEST)).half()
        wrapped = isinstance(getattr(owner, key), nn.Parameter)
        setattr(owner, key, nn.Parameter(value, requires_grad=False) if wrapped else value)


def _cast(
    graph: fx.GraphModule,
    source: fx.Node,
    dtype: torch.dtype,
    casts: dict[tuple[fx.Node, torch.dtype], fx.Node],
) -> fx.Node:
    if (source, dtype) not in casts:
        with graph.graph.inserting_after(source):
            casts[source, dtype] = graph.graph.call_function(aten.to.dtype, (source, dtype))
    return casts[source, dtype]


def _with_dtype(arguments: Any, dtype: torch.dtype) -> Any:
    """The arguments with every float dtype among them replaced."""
    found = fx.node.map_aggregate(
        arguments,
        lambda each: dtype if isinstance(each, torch.dtype) and each.is_floating_point else each,
    )
    return found
