"""Which operators of a graph compute in integers, decided one by one. Convolutions and linear
layers with constant weights always do. Any other operator with an integer form does too where its
neighbors do, whatever the rest of the network is made of. In float stay:

- operators without an integer form, such as a layer norm, and what only moves values between two;
- the inner steps of a normalization that is written out (a variance, a root, their sums and
  products with numbers), which amplify rounding errors;
- values that end up as integers, such as ids that are looked up in a table.
"""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.chains import IN_INTEGERS, chains_of, inner_nodes
from edgekd.quant.constants import is_constant
from edgekd.quant.masks import hides

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
_STEPS = (_BETWEEN | {aten.div.Tensor}) - {aten.matmul.default, aten.bmm.default}
"""Operators that may be the inner steps of a normalization."""

_MOVING = (ops.SHARED | ops.JOINED) - _POOLS - ops.CHOOSING


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
    return value.is_floating_point() or value.is_complex() or value.dtype is torch.bool


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
    """Chains count as one operator: their inner nodes are left out."""

    def __init__(self, graph: fx.GraphModule, floats: Collection[str]) -> None:
        self.chains = chains_of(graph)
        self.tails = inner_nodes(self.chains)
        self.nodes = [
            node for node in graph.graph.nodes if node.op != "get_attr" and node not in self.tails
        ]
        self.exact = exact_nodes(graph)
        self.layers = {
            node for node in self.nodes if is_weighted(node) and layer_of(node) not in floats
        }
        self.leading = _ancestors(self.layers)
        self.chosen = {
            node
            for node in self.nodes
            if node in self.chains or _may_be_integer(node)
            if node not in self.exact and node.name not in floats
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
        """The inner steps of normalizations: what is computed from a variance, a root or a
        logarithm alone, up to the next layer or to a product with another value."""
        tainted: set[fx.Node] = set()
        for node in self.nodes:
            inputs = self._inputs(node)
            steps = node in self.chains or node.target in _STEPS
            inner = steps and inputs and all(each in tainted for each in inputs)
            if inner or (node not in self.chains and _is_sensitive(node)):
                tainted.add(node)
        return tainted

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        """The float tensors that a node or a chain reads."""
        return [self.chains[node].source] if node in self.chains else data_inputs(node)

    def _users(self, node: fx.Node) -> list[fx.Node]:
        """The nodes and chains that read a node."""
        return list(dict.fromkeys(self.tails.get(user, user) for user in node.users))

    def _stays(self, node: fx.Node, tainted: set[fx.Node]) -> bool:
        inputs, users = self._inputs(node), self._users(node)
        if node.target in ops.LOOKUPS:
            return any(self._welcomes(user, False) for user in users)
        if not inputs or any(each in tainted for each in inputs):
            return False
        if users and all(each in tainted and _is_sensitive(each) for each in users):
            return False
        if node not in self.chains and node.target in ops.SHARED | ops.FUSED | ops.JOINED:
            return self._moves(node, inputs)
        return any(self._welcomes(user, False) for user in users)

    def _moves(self, node: fx.Node, inputs: list[fx.Node]) -> bool:
        """Whether a node that keeps its input's grid saves a conversion: its input is on a grid and
        somebody reads it on one, or an integer operator is all that reads it."""
        moves = node.target in _MOVING
        if any(self._on_a_grid(each) for each in inputs):
            opaque = moves and not self._computed(node)
            return any(self._welcomes(user, opaque) for user in self._users(node))
        if node.target in ops.TAKING or any(each in self.exact for each in inputs):
            return False  # the grid would span what is left out, too
        users = self._users(node)
        return moves and all(user in self.chosen or user in self.layers for user in users)

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
        return not moved and user.target not in _MOVING

    def _computed(self, node: fx.Node) -> bool:
        """Whether all that a node moves was computed in integers, so that it has a grid anyway.
        The network's inputs have one only where somebody reads it."""
        waiting, seen = list(self._inputs(node)), set()
        while waiting:
            source = waiting.pop()
            if source.target not in _MOVING:
                if source not in self.chosen and source not in self.layers:
                    return False
            elif source not in seen:
                seen.add(source)
                waiting.extend(self._inputs(source))
        return True


def _is_sensitive(node: fx.Node) -> bool:
    return node.target in ops.SENSITIVE and IN_INTEGERS not in node.meta


def _may_be_integer(node: fx.Node) -> bool:
    if node.op != "call_function" or not is_float(node):
        return False
    if node.kwargs.get("alpha", 1) != 1 or any(map(_is_complex, node.all_input_nodes)):
        return False
    if node.target is aten.where.self:
        return hides(node)
    if node.target in ops.LOOKUPS:
        return is_constant(node.args[0])
    if node.target in ops.CHOOSING and any(is_constant(each) for each in node.args):
        return False
    return node.target in _BETWEEN or divides_by_constant(node)


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


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
