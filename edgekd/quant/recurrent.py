"""Unrolls recurrent layers into linear layers, sigmoids, tanhs, products and sums.

No runtime has an integer kernel for every recurrent layer, and TVM imports them wrongly. So the
graph has one copy of the cell for each step of the fixed sequence. The input projections of all
steps are one matrix product, and all steps read the same weights. `GROUP` in a node's `meta` names
the values of different steps that belong on one grid: a state that changed its grid at every step
would drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekd.errors import InputError
from edgekd.network.fx_names import layer_of
from edgekd.quant.recurrent_cells import CELLS, STATES, State, Weights, Writer

aten = torch.ops.aten

_SEQUENCES = {
    aten.lstm.input: "lstm",
    aten.gru.input: "gru",
    aten.rnn_tanh.input: "rnn_tanh",
    aten.rnn_relu.input: "rnn_relu",
}
_SINGLE_STEPS = {
    aten.lstm_cell.default: "lstm",
    aten.gru_cell.default: "gru",
    aten.rnn_tanh_cell.default: "rnn_tanh",
    aten.rnn_relu_cell.default: "rnn_relu",
}
_PACKED = {aten.lstm.data, aten.gru.data, aten.rnn_tanh.data, aten.rnn_relu.data}
_ZEROS = {aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default}

RECURRENT = {*_SEQUENCES, *_SINGLE_STEPS}
"""The operators of recurrent layers and cells."""


def unroll_recurrent(graph: fx.GraphModule, where: str, *, keep_layers: bool = False) -> None:
    """Replace every recurrent layer and cell of a graph by the operators of its steps.

    With `keep_layers`, LSTM and GRU layers stay that ONNX has an operator for: in float, ONNX
    Runtime's own kernels are several times as fast as the operators of every step.

    Raises `InputError` for packed sequences, whose number of steps depends on the data.
    """
    for node in list(graph.graph.nodes):
        if node.target in _PACKED:
            raise packed_sequence(layer_of(node), where)
        if node.target in _SEQUENCES and not (keep_layers and _is_in_onnx(node)):
            _unroll_layers(graph, node)
        elif node.target in _SINGLE_STEPS:
            _write_step(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def packed_sequence(layer: str, where: str) -> InputError:
    """The error for a layer that reads a packed sequence."""
    return InputError(
        f"recurrent layer '{layer}' reads a packed sequence, whose number of steps depends on the "
        "data",
        where=where,
        hint="pass the padded sequence to the layer and mask its outputs behind the end instead",
    )


def _is_in_onnx(node: fx.Node) -> bool:
    """Whether ONNX has an operator for a layer, and the exporter writes it correctly."""
    call = _call(node)
    return call.kind in ("lstm", "gru") and call.cell(0).projection is None


@dataclass(frozen=True)
class _Call:
    """The arguments of a recurrent layer: input, states (layers * directions, B, H), weights."""

    kind: str
    x: fx.Node
    states: tuple[fx.Node, ...]
    weights: tuple[fx.Node, ...]
    has_biases: bool
    layers: int
    directions: int
    time: int
    """The dimension of `x` that counts the steps."""

    @property
    def size(self) -> int:
        """The number of weights of one direction of one layer."""
        return len(self.weights) // (self.layers * self.directions)

    def cell(self, number: int) -> Weights:
        """The weights of the cell with this number: layer * directions + direction."""
        own = self.weights[number * self.size : (number + 1) * self.size]
        return Weights(
            inputs=own[0],
            hidden=own[1],
            input_bias=own[2] if self.has_biases else None,
            hidden_bias=own[3] if self.has_biases else None,
            projection=own[-1] if self.size in (3, 5) else None,
        )


def _call(node: fx.Node) -> _Call:
    arguments: tuple[Any, ...] = node.args
    x, states, weights, has_biases, layers, _, _, bidirectional, batch_first = arguments
    states = tuple(states) if isinstance(states, list | tuple) else (states,)
    return _Call(
        kind=_SEQUENCES[node.target],  # type: ignore[index]
        x=x,
        states=states,
        weights=tuple(weights),
        has_biases=has_biases,
        layers=layers,
        directions=1 + bool(bidirectional),
        time=1 if batch_first else 0,
    )


def _unroll_layers(graph: fx.GraphModule, node: fx.Node) -> None:
    call = _call(node)
    write = Writer(graph, node)
    x, ends = call.x, []
    runs: list[_Run] = []
    with graph.graph.inserting_before(node):
        for layer in range(call.layers):
            if layer:
                x = _sequence(write, runs, call.time)
            first = layer * call.directions
            runs = [_run(write, call, x, first + way) for way in range(call.directions)]
            ends += [run.last for run in runs]
        for user in list(node.users):
            place: Any = user.args[1]
            if place:
                user.replace_all_uses_with(_stacked(write, [end[place - 1] for end in ends]))
                graph.graph.erase_node(user)
        # Last, because a tap reads the last value that a layer computes.
        whole = _sequence(write, runs, call.time)
    for user in list(node.users):
        _replace_sequence(graph, user, write, runs, whole, call.time)
    graph.graph.erase_node(node)


@dataclass(frozen=True)
class _Run:
    """One direction of one layer: the outputs (B, H) in the order of time, the same with a time
    dimension of one, and the last state."""

    outputs: list[fx.Node]
    sequence: list[fx.Node]
    last: State


def _sequence(write: Writer, runs: list[_Run], time: int) -> fx.Node:
    """The outputs of all steps, of one direction beside the other: (B, T, H * directions)."""
    whole = [write(aten.cat.default, run.sequence, time) for run in runs]
    return _joined(write, whole, -1)


def _run(write: Writer, call: _Call, x: fx.Node, number: int) -> _Run:
    backward = call.directions == 2 and number % 2 == 1
    cell = CELLS[call.kind](write.named(f"{write.node.name}_{number}"), call.cell(number))
    projected = cell.project(x)
    count = int(x.meta["val"].shape[call.time])
    states = [_initial(write, given, number) for given in call.states]
    state: Any = None if states[0] is None else tuple(states)
    outputs, sequence = [], []
    for step in reversed(range(count)) if backward else range(count):
        state = cell.step(write(aten.select.int, projected, call.time, step), state)
        outputs.append(state[0])
        # At once, so that all operators of a step stand together.
        sequence.append(write(aten.unsqueeze.default, state[0], call.time))
    order = slice(None, None, -1) if backward else slice(None)
    return _Run(outputs[order], sequence[order], state)


def _initial(write: Writer, states: fx.Node, number: int) -> fx.Node | None:
    """The state before the first step; None for zeros."""
    if states.target in _ZEROS:
        return None
    return write(aten.select.int, states, 0, number)


def _write_step(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace a cell, which computes one step."""
    arguments: tuple[Any, ...] = node.args
    x, states, *weights = arguments
    states = tuple(states) if isinstance(states, list | tuple) else (states,)
    kind = _SINGLE_STEPS[node.target]  # type: ignore[index]
    write = Writer(graph, node)
    with graph.graph.inserting_before(node):
        cell = CELLS[kind](write.named(node.name), Weights(*weights))
        known = states[0].target not in _ZEROS
        result = cell.step(cell.project(x), states if known else None)
    if STATES[kind] == 1:
        node.replace_all_uses_with(result[0])
    for user in list(node.users):
        user.replace_all_uses_with(result[user.args[1]])
        graph.graph.erase_node(user)
    graph.graph.erase_node(node)


def _joined(write: Writer, parts: Sequence[fx.Node], dim: int) -> fx.Node:
    return parts[0] if len(parts) == 1 else write(aten.cat.default, list(parts), dim)


def _stacked(write: Writer, parts: Sequence[fx.Node]) -> fx.Node:
    return _joined(write, [write(aten.unsqueeze.default, part, 0) for part in parts], 0)


def _replace_sequence(
    graph: fx.GraphModule,
    sequence: fx.Node,
    write: Writer,
    runs: list[_Run],
    whole: fx.Node,
    time: int,
) -> None:
    """Replace the sequence of outputs; a reader of one step reads it directly."""
    for user in list(sequence.users):
        if user.target is aten.select.int and user.args[1] % sequence.meta["val"].dim() == time:
            step: Any = user.args[2]
            with graph.graph.inserting_before(user):
                read = _joined(write, [run.outputs[step] for run in runs], -1)
            user.replace_all_uses_with(read)
            graph.graph.erase_node(user)
    sequence.replace_all_uses_with(whole)
    graph.graph.erase_node(sequence)
