"""Which operators of a graph compute in integers, decided region by region. Convolutions and linear
layers with constant weights always do. Operators between them do where that saves a conversion and
costs no precision:

- not the results of attention or a normalization, up to the next layer, nor the inputs of a
  normalization (a Transformer's residual stream);
- not values that end up as integers, such as ids that are looked up in a table;
- operators that only move values (reshape, slice, concatenate) if their input is quantized and
  an integer operator or the network's output reads them.
"""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.constants import is_constant

aten = torch.ops.aten

_BETWEEN = ops.REGRIDDED | ops.FUSED | ops.SHARED | ops.JOINED
_POOLS = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.amax.default,
    aten.amin.default,
    aten.upsample_bilinear2d.vec,
}
_MOVING = (ops.SHARED | ops.JOINED) - _POOLS - ops.CHOOSING
_MADE_IN_FLOAT = ops.ATTENTION | ops.SENSITIVE


def integer_nodes(graph: fx.GraphModule, floats: Collection[str] = ()) -> set[fx.Node]:
    """The nodes that compute in integers; layers and nodes named in `floats` don't."""
    return _Regions(graph, floats).decided()


def exact_nodes(graph: fx.GraphModule) -> set[fx.Node]:
    """Float values, including inputs, whose integer part is used: rounding would change the ids."""
    exact: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        read = any(user in exact or not _keeps_floats(user) for user in node.users)
        if is_float(node) and read and not is_weighted(node):
            exact.add(node)
    return exact


def _keeps_floats(user: fx.Node) -> bool:
    """Whether a node that reads floats results in floats or a condition, not in integers."""
    value = user.meta.get("val")
    if user.op == "output" or not isinstance(value, Tensor):
        return True
    return value.is_floating_point() or value.dtype is torch.bool


def is_float(node: Any) -> bool:
    """Whether a node's result is one float tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, Tensor) and value.is_floating_point()


def is_weighted(node: fx.Node) -> bool:
    """Whether a node is a convolution or a linear layer with a constant weight."""
    return node.target in ops.WEIGHTED and is_constant(node.args[1])


def data_inputs(node: fx.Node) -> list[fx.Node]:
    """The float tensors that a node reads, without constants."""
    return [each for each in node.all_input_nodes if is_float(each) and not is_constant(each)]


class _Regions:
    def __init__(self, graph: fx.GraphModule, floats: Collection[str]) -> None:
        self.nodes = [node for node in graph.graph.nodes if node.op != "get_attr"]
        self.exact = exact_nodes(graph)
        self.layers = {
            node for node in self.nodes if is_weighted(node) and layer_of(node) not in floats
        }
        self.leading = _ancestors(self.layers)
        self.chosen = {
            node
            for node in self.nodes
            if _may_be_integer(node) and node not in self.exact and node.name not in floats
        }

    def decided(self) -> set[fx.Node]:
        """Remove nodes until nothing changes, since removing one can take the reason from
        others."""
        while True:
            tainted = self._tainted()
            left = {node for node in self.chosen if self._stays(node, tainted)}
            if left == self.chosen:
                return self.chosen | self.layers
            self.chosen = left

    def _tainted(self) -> set[fx.Node]:
        """The results of attention and normalizations, up to the next layer."""
        tainted: set[fx.Node] = set()
        for node in self.nodes:
            if node in self.layers:
                continue
            if node.target in _MADE_IN_FLOAT or any(each in tainted for each in data_inputs(node)):
                tainted.add(node)
        return tainted

    def _stays(self, node: fx.Node, tainted: set[fx.Node]) -> bool:
        inputs = data_inputs(node)
        if not inputs or any(each in tainted for each in inputs):
            return False
        if any(user.target in ops.SENSITIVE for user in node.users):
            return False
        moves = node.target in _MOVING
        if (node.target in ops.SHARED | ops.FUSED) and not self._on_a_grid(inputs[0]):
            return False
        if node.target in ops.JOINED and not any(self._on_a_grid(each) for each in inputs):
            return False
        return any(self._welcomes(user, moves) for user in node.users)

    def _on_a_grid(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return node not in self.exact
        return node in self.chosen or node in self.layers

    def _welcomes(self, user: fx.Node, moved: bool) -> bool:
        """Whether a user of the node computes in integers, or is the network's output."""
        if user in self.chosen or user in self.layers or user.op == "output":
            return True
        if user not in self.leading:
            return True
        return not moved and user.target not in ops.ATTENTION | _MOVING


def _may_be_integer(node: fx.Node) -> bool:
    if node.op != "call_function" or not is_float(node):
        return False
    if node.kwargs.get("alpha", 1) != 1:
        return False
    if node.target in ops.CHOOSING and any(is_constant(each) for each in node.args):
        return False
    return node.target in _BETWEEN or divides_by_constant(node)


def divides_by_constant(node: fx.Node) -> bool:
    """Whether a node divides a tensor by a number or a constant."""
    if node.target is not aten.div.Tensor or not isinstance(node.args[0], fx.Node):
        return False
    divisor = node.args[1]
    return isinstance(divisor, int | float) or is_constant(divisor)


def _ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found
