"""The steps of recurrent cells, written as nodes of a graph.

The equations are PyTorch's (nn.LSTM: Hochreiter and Schmidhuber 1997; nn.GRU: Cho et al. 2014). A
step whose state is zero leaves out what the state would be multiplied with.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from edgekd.quant.constants import constant_of, is_constant

aten = torch.ops.aten

GROUP = "recurrent_group"
"""The key in a node's `meta` of the group of values, one of each step, that share a grid."""

State = tuple[fx.Node, ...]


@dataclass(frozen=True)
class Weights:
    """The weights of a cell: (gates * H, I), (gates * H, H), biases, and (P, H) of a projection."""

    inputs: fx.Node
    hidden: fx.Node
    input_bias: fx.Node | None = None
    hidden_bias: fx.Node | None = None
    projection: fx.Node | None = None


@dataclass(frozen=True)
class Writer:
    """Writes nodes in the place of the recurrent layer `node`, at the graph's insertion point."""

    graph: fx.GraphModule
    node: fx.Node
    name: str = ""

    def named(self, name: str) -> "Writer":
        """A writer whose groups have this name."""
        return replace(self, name=name)

    def __call__(self, op: Any, *arguments: Any, group: str = "") -> fx.Node:
        node = self.graph.graph.call_function(op, arguments)
        node.meta.update({key: value for key, value in self.node.meta.items() if key != "val"})
        with self._fake_mode():
            node.meta["val"] = op(*fx.map_arg(arguments, self._value))
        if group:
            node.meta[GROUP] = f"{self.name}.{group}"
        return node

    def _fake_mode(self) -> Any:
        value = self.node.meta["val"]
        return (value[0] if isinstance(value, tuple | list) else value).fake_mode

    def _value(self, node: fx.Node) -> Any:
        if "val" not in node.meta and is_constant(node):
            value = constant_of(self.graph, node)
            node.meta["val"] = self._fake_mode().from_tensor(value, static_shapes=True)
        return node.meta["val"]

    def continues(self, state: fx.Node, group: str) -> None:
        """Put the state that a step reads in the group of those that steps compute: a state that
        is an input of the network has the grid of that output."""
        state.meta.setdefault(GROUP, f"{self.name}.{group}")
        while state.target is aten.clone.default:  # the copy of an input, which is removed later
            state = state.args[0]  # type: ignore[assignment]
            state.meta.setdefault(GROUP, f"{self.name}.{group}")

    def part(self, x: fx.Node, start: int, end: int, group: str = "") -> fx.Node:
        """x[..., start:end]"""
        return self(aten.slice.Tensor, x, x.meta["val"].dim() - 1, start, end, group=group)

    def rows(self, weight: fx.Node, start: int, end: int) -> fx.Node:
        """weight[start:end]"""
        return self(aten.slice.Tensor, weight, 0, start, end)

    def summed(self, first: fx.Node | None, second: fx.Node | None) -> fx.Node | None:
        """The sum of two biases that may be missing."""
        if first is None or second is None:
            return first or second
        return self(aten.add.Tensor, first, second)

    def linear(self, x: fx.Node, weight: fx.Node, bias: fx.Node | None, group: str = "") -> fx.Node:
        """x weight^T + bias"""
        rest = () if bias is None else (bias,)
        return self(aten.linear.default, x, weight, *rest, group=group)


class Lstm:
    """c' = f c + i g, h' = o tanh(c'), with i, f, o = sigmoid(.) and g = tanh(.) of the weighted
    sums. The gates are reordered to i, f, o, g, so that one sigmoid computes the first three."""

    def __init__(self, write: Writer, weights: Weights) -> None:
        self.write, self.weights = write, weights
        self.size = write._value(weights.hidden).shape[0] // 4
        bias = write.summed(weights.input_bias, weights.hidden_bias)
        self.bias = None if bias is None else self._reordered(bias)
        self.inputs, self.hidden = (
            self._reordered(weight) for weight in (weights.inputs, weights.hidden)
        )

    def _reordered(self, weight: fx.Node) -> fx.Node:
        write, size = self.write, self.size
        bounds = [(0, 2 * size), (3 * size, 4 * size), (2 * size, 3 * size)]
        return write(aten.cat.default, [write.rows(weight, *bound) for bound in bounds])

    def project(self, x: fx.Node) -> fx.Node:
        """What the inputs of all steps add to the gates, (B, T, 4 H)."""
        return self.write.linear(x, self.inputs, self.bias)

    def step(self, projected: fx.Node, state: State | None) -> State:
        """The next (hidden, cell) state, (B, H) each."""
        write, size = self.write, self.size
        gates = projected
        if state is not None:
            write.continues(state[0], "hidden" if self.weights.projection is None else "projected")
            write.continues(state[1], "cell")
            recurrent = write.linear(state[0], self.hidden, None, "recurrent")
            gates = write(aten.add.Tensor, projected, recurrent, group="gates")
        opened = write(aten.sigmoid.default, write.part(gates, 0, 3 * size))
        new = write(aten.tanh.default, write.part(gates, 3 * size, 4 * size))
        taken, kept, shown = (
            write.part(opened, place * size, (place + 1) * size) for place in range(3)
        )
        if state is None:
            cell = write(aten.mul.Tensor, taken, new, group="cell")
        else:
            added = write(aten.mul.Tensor, taken, new, group="added")
            old = write(aten.mul.Tensor, kept, state[1], group="cell")
            cell = write(aten.add.Tensor, old, added, group="cell")
        squashed = write(aten.tanh.default, cell)
        hidden = write(aten.mul.Tensor, shown, squashed, group="hidden")
        if self.weights.projection is not None:
            hidden = write.linear(hidden, self.weights.projection, None, "projected")
        return hidden, cell


class Gru:
    """h' = (1 - z) n + z h, with r, z = sigmoid(.) and n = tanh(x W + b + r (h U + c))."""

    def __init__(self, write: Writer, weights: Weights) -> None:
        self.write, self.weights = write, weights
        self.size = size = write._value(weights.hidden).shape[0] // 3
        self.input_bias = self.hidden_bias = None
        if weights.input_bias is not None and weights.hidden_bias is not None:
            # The biases of r and z are added once, with the inputs.
            zeros = write(aten.zeros.default, [size])
            gates = write.rows(weights.hidden_bias, 0, 2 * size)
            moved = write(aten.cat.default, [gates, zeros])
            self.input_bias = write(aten.add.Tensor, weights.input_bias, moved)
            self.new_bias = write.rows(weights.hidden_bias, 2 * size, 3 * size)
            self.hidden_bias = write(aten.cat.default, [zeros, zeros, self.new_bias])

    def project(self, x: fx.Node) -> fx.Node:
        """What the inputs of all steps add to the gates, (B, T, 3 H)."""
        return self.write.linear(x, self.weights.inputs, self.input_bias)

    def step(self, projected: fx.Node, state: State | None) -> State:
        """The next hidden state, (B, H)."""
        write, size = self.write, self.size
        gates, inner = (
            write.part(projected, 0, 2 * size),
            write.part(projected, 2 * size, 3 * size),
        )
        offset: Any = self.new_bias if self.hidden_bias is not None else None
        if state is not None:
            write.continues(state[0], "hidden")
            recurrent = write.linear(state[0], self.weights.hidden, self.hidden_bias, "recurrent")
            shift = write.part(recurrent, 0, 2 * size)
            gates = write(aten.add.Tensor, gates, shift, group="gates")
            offset = write.part(recurrent, 2 * size, 3 * size)
        opened = write(aten.sigmoid.default, gates)
        reset, kept = write.part(opened, 0, size), write.part(opened, size, 2 * size)
        if offset is not None:
            reset_offset = write(aten.mul.Tensor, reset, offset, group="reset")
            inner = write(aten.add.Tensor, inner, reset_offset, group="inner")
        new = write(aten.tanh.default, inner)
        taken = write(aten.rsub.Scalar, kept, 1.0, group="taken")
        if state is None:
            return (write(aten.mul.Tensor, taken, new, group="hidden"),)
        added = write(aten.mul.Tensor, taken, new, group="added")
        old = write(aten.mul.Tensor, kept, state[0], group="hidden")
        return (write(aten.add.Tensor, old, added, group="hidden"),)


class Plain:
    """h' = tanh(x W + h U + b), or with a ReLU."""

    activation: Any = aten.tanh.default

    def __init__(self, write: Writer, weights: Weights) -> None:
        self.write, self.weights = write, weights
        self.bias = write.summed(weights.input_bias, weights.hidden_bias)

    def project(self, x: fx.Node) -> fx.Node:
        """What the inputs of all steps add, (B, T, H)."""
        return self.write.linear(x, self.weights.inputs, self.bias)

    def step(self, projected: fx.Node, state: State | None) -> State:
        """The next hidden state, (B, H)."""
        write, total = self.write, projected
        if state is not None:
            write.continues(state[0], "hidden")
            recurrent = write.linear(state[0], self.weights.hidden, None, "recurrent")
            total = write(aten.add.Tensor, projected, recurrent, group="gates")
        return (write(self.activation, total, group="hidden"),)


class Relu(Plain):
    """h' = relu(x W + h U + b)."""

    activation = aten.relu.default


CELLS: dict[str, Any] = {"lstm": Lstm, "gru": Gru, "rnn_tanh": Plain, "rnn_relu": Relu}
STATES = {"lstm": 2, "gru": 1, "rnn_tanh": 1, "rnn_relu": 1}
"""How many states a cell has."""
