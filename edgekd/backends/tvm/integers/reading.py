"""Reads a quantized graph as steps in integers and, between them, stretches of operators in float.

An operator becomes a step when it reads dequantized tensors of 8 bits and gives what is quantized
next, with or without a clamp between, and one of the tables here knows it. Everything else stays
in float.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekd.backends.tvm.integers import moving, pointwise, reducing, weighted
from edgekd.backends.tvm.integers.graph import clamp_of, shape_of, value_of
from edgekd.backends.tvm.integers.grid import grid_of
from edgekd.backends.tvm.integers.steps import Quantized, Step, Value
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.inspection import computes
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE, is_weight

Recognizer = Callable[[fx.GraphModule, fx.Node, Value], Step | None]

RECOGNIZERS: dict[Any, Recognizer] = {
    **weighted.RECOGNIZERS,
    **pointwise.RECOGNIZERS,
    **reducing.RECOGNIZERS,
    **moving.RECOGNIZERS,
}


@dataclass(frozen=True)
class InFloat:
    """Neighbouring operators that compute in float. They read quantized tensors dequantized."""

    nodes: tuple[fx.Node, ...]


def in_float(graph: fx.GraphModule) -> list[tuple[str, str]]:
    """(kind, layer) of each operator that stays in float, in order."""
    stretches = (part for part in read(graph) if isinstance(part, InFloat))
    return [
        (ops.name_of(node), layer_of(node))
        for part in stretches
        for node in part.nodes
        if computes(node)
    ]


def read(graph: fx.GraphModule) -> Iterator[Step | InFloat]:
    """Everything that the graph computes, each part behind those that it reads."""
    steps, used = _steps(graph)
    pending: list[fx.Node] = []
    for node in graph.graph.nodes:
        if node.target in QUANTIZE and node in steps:
            if pending and _reaches(node, set(pending)):
                yield InFloat(tuple(pending))
                pending = []
            yield steps[node]
        elif node.op == "call_function" and node not in used and not is_restored(node):
            pending.append(node)
    if pending:
        yield InFloat(tuple(pending))


def is_restored(node: fx.Node) -> bool:
    """Whether a node gives the real values of a constant, or of a tensor that a step computes."""
    if node.target not in DEQUANTIZE:
        return False
    return is_weight(node) or (len(node.args) == 6 and grid_of(node) is not None)


def _reaches(node: fx.Node, pending: set[fx.Node]) -> bool:
    """Whether a quantize node reads what operators in float compute, itself or through a step."""
    seen, todo = set(), list(node.all_input_nodes)
    while todo:
        each = todo.pop()
        if each in pending:
            return True
        if each in seen or each.target in QUANTIZE:
            continue
        seen.add(each)
        todo += each.all_input_nodes
    return False


def _steps(graph: fx.GraphModule) -> tuple[dict[fx.Node, Step], set[fx.Node]]:
    """The step of every quantize node, and the operators that the steps compute."""
    steps: dict[fx.Node, Step] = {}
    used: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in RECOGNIZERS:
            made = _recognized(graph, node)
            if made:
                steps |= made[0]
                used |= made[1]
    for node in graph.graph.nodes:
        if node.target in QUANTIZE and node not in steps and grid_of(node) is not None:
            steps[node] = _quantized(graph, node)
    return steps, used | set(steps)


def _recognized(
    graph: fx.GraphModule, node: fx.Node
) -> tuple[dict[fx.Node, Step], set[fx.Node]] | None:
    """The steps of one operator, one for each grid that its result is put on, and the operators
    that they stand for; None if it stays in float."""
    last, clamp = node, clamp_of(node)
    if clamp is not None:
        last = clamp.node
    steps: dict[fx.Node, Step] = {}
    for user in last.users:
        grid = grid_of(user) if user.target in QUANTIZE else None
        if grid is None:
            return None
        if clamp is not None:
            grid = grid.clamped(clamp.least, clamp.most)
        step = RECOGNIZERS[node.target](graph, node, Value(user.name, shape_of(user), grid))
        if step is None:
            return None
        steps[user] = step
    return (steps, {node, last}) if steps else None


def _quantized(graph: fx.GraphModule, node: fx.Node) -> Step:
    """A step that quantizes a float tensor, or changes the grid of a quantized one."""
    grid = grid_of(node)
    assert grid is not None
    result = Value(node.name, shape_of(node), grid)
    source: Any = node.args[0]
    quantized = value_of(graph, source)
    if quantized is not None:
        return pointwise.regridded(quantized, result, layer_of(node))
    return Quantized(result, layer_of(node), "quantize", source.name)


def as_graph(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """An exported program as a graph whose constants are attributes."""
    module: Any = program.module(check_guards=False)
    return module  # type: ignore[no-any-return]
