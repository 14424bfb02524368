"""Chains: functions of one value that are written as one operator or several, such as a Mish or
`x / (1 + |x|)`. Between two int8 grids such a function is a table of 256 values, whatever it
computes, so its inner values need no grids of their own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.rewrite import DEQUANTIZE, dequantized, integers_of, quantized

aten = torch.ops.aten

_UNARY = ops.FUNCTIONS - {aten.prelu.default} | {
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.log.default,
    aten.log1p.default,
    aten.log2.default,
    aten.expm1.default,
    aten.erf.default,
    aten.sin.default,
    aten.cos.default,
    aten.atan.default,
    aten.square.default,
    aten.pow.Tensor_Scalar,
    aten.log_sigmoid.default,
    aten.hardshrink.default,
    aten.softshrink.default,
}
"""Functions of one value that not every runtime has an integer kernel for."""

_ARITHMETIC = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
_EASY = _ARITHMETIC | {aten.rsub.Scalar, aten.sigmoid.default, aten.tanh.default}
"""Operators with integer kernels, which join a chain but don't make one."""

REDUCTIONS = {aten.mean.dim, aten.sum.dim_IntList, aten.mean.default}

IN_INTEGERS = "computes_in_integers"
"""The key in the `meta` of a part of a normalization that is to compute in integers all the
same."""


@dataclass(frozen=True)
class Chain:
    """A function of `source`; `nodes` are its operators in order, and the last gives its value."""

    source: fx.Node
    nodes: tuple[fx.Node, ...]

    @property
    def tail(self) -> fx.Node:
        """The operator that gives the function's value."""
        return self.nodes[-1]


def chains_of(graph: fx.GraphModule) -> dict[fx.Node, Chain]:
    """The chains of a float or a quantized graph by their last operator; no two overlap."""
    found: dict[fx.Node, Chain] = {}
    taken: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        chain = None if node in taken else _chain_to(graph, node)
        if chain is not None and not _is_inside_a_norm(chain):
            found[node] = chain
            taken.update(chain.nodes)
    return found


def _chain_to(graph: fx.GraphModule, tail: fx.Node) -> Chain | None:
    if tail.target is aten.prelu.default and is_constant(tail.args[1]):
        return Chain(tail.args[0], (tail,))  # type: ignore[arg-type]
    if not _joins(graph, tail):
        return None
    members = {tail}
    waiting = [*tail.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node not in members and _joins(graph, node) and members.issuperset(node.users):
            members.add(node)
            waiting += node.all_input_nodes
    sources = {
        source
        for node in members
        for source in node.all_input_nodes
        if source not in members and not is_constant(integers_of(source))
    }
    origins = {_origin(source) for source in sources}
    if len(origins) != 1 or not any(node.target in _UNARY for node in members):
        return None
    ordered = tuple(node for node in graph.graph.nodes if node in members)
    return Chain(sources.pop(), ordered)


def _joins(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node computes each number of its result from one number of its inputs."""
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor):
        return False
    if not value.is_floating_point() or node.kwargs.get("alpha", 1) != 1:
        return False
    if node.target not in _UNARY | _EASY:
        return False
    for source in node.all_input_nodes:
        if is_constant(integers_of(source)):
            if constant_of(graph, integers_of(source)).numel() != 1:
                return False
        elif not _has_shape(source, value):
            return False
    return True


_WITHOUT_GRIDS = {torch.int64, torch.int32, torch.bool, torch.complex64, torch.complex128}


def _has_shape(node: fx.Node, value: Tensor) -> bool:
    """Whether a node's result has the shape of `value`, and a type that a grid can have."""
    while "val" not in node.meta and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    found = node.meta.get("val")
    if not isinstance(found, Tensor) or found.dtype in _WITHOUT_GRIDS:
        return False
    return tuple(map(str, found.shape)) == tuple(map(str, value.shape))


def _origin(node: fx.Node) -> Any:
    """What is the same for all dequantize nodes of one value."""
    return node.args if node.target in DEQUANTIZE else node


def _is_inside_a_norm(chain: Chain) -> bool:
    """Whether a chain has a root or a power next to a mean: such steps of a normalization that is
    written out amplify the rounding of their input."""
    sensitive = [
        node
        for node in chain.nodes
        if node.target in ops.SENSITIVE and IN_INTEGERS not in node.meta
    ]
    if not sensitive:
        return False
    reduced = integers_of(chain.source).target in REDUCTIONS | ops.SENSITIVE
    tail = chain.tail
    return reduced or (tail in sensitive and any(user.target in REDUCTIONS for user in tail.users))


def inner_nodes(chains: Mapping[fx.Node, Chain]) -> dict[fx.Node, fx.Node]:
    """The last operator of its chain for each operator before it."""
    return {node: tail for tail, chain in chains.items() for node in chain.nodes[:-1]}


def channels_of(graph: fx.GraphModule, chain: Chain) -> int:
    """The number of channels if each has a function of its own, as those of a PReLU; else 1."""
    if chain.tail.target is not aten.prelu.default:
        return 1
    return constant_of(graph, chain.tail.args[1]).numel()  # type: ignore[arg-type]


def computed(graph: fx.GraphModule, chain: Chain, x: Tensor) -> Tensor:
    """The chain's function of the numbers (n,), or of those of each channel (n, channels)."""
    values: dict[fx.Node, Any] = {}

    def value_of(node: fx.Node) -> Any:
        if node in values:
            return values[node]
        if is_constant(node):
            return constant_of(graph, node).detach()
        if node.target in DEQUANTIZE and is_constant(node.args[0]):
            return dequantized(graph, node)
        return x

    with torch.no_grad():
        for node in chain.nodes:
            arguments, keywords = fx.map_arg((node.args, node.kwargs), value_of)
            values[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
    result: Tensor = values[chain.tail].reshape(x.shape)
    return result


def table_of(graph: fx.GraphModule, chain: Chain, grids: Iterable[tuple[Any, ...]]) -> Tensor:
    """The integers (channels, 256) that a chain of a quantized graph gives for all integers that it
    reads, from the lowest on. `grids` are (scale, zero point, lowest, highest, type) before and
    behind."""
    before, behind = grids
    integers = torch.arange(before[2], before[3] + 1).to(before[4])
    x = quantized.dequantize_per_tensor.default(integers, *before)
    y = computed(graph, chain, x[:, None].expand(-1, channels_of(graph, chain)))
    result: Tensor = quantized.quantize_per_tensor.default(y, *behind)
    return result.t().contiguous()
