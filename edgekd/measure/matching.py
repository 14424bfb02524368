"""Which tensors of a compiled file are which values of its quantized graph.

A file's quantized tensors are matched with the graph's quantize nodes in order of execution, by
scale and shape. Zero points are ignored: int8 from -128 and uint8 from 0 are the same grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgekd.values.inner_tensor import InnerTensor
from edgekd.values.tree import Tree

_QUANTIZE = "quantized_decomposed.quantize_per_tensor"
_DEQUANTIZE = "quantized_decomposed.dequantize"


@dataclass(frozen=True, eq=False)
class Point:
    """One activation's quantize node, its scale, and its steps for this input."""

    node: fx.Node
    scale: float
    steps: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.steps.shape)


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.points: list[Point] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if quantizes_activation(n):
            self.points.append(Point(n, number(n.args[1]), result))
        return result


def reference_points(graph: fx.GraphModule, inputs: Tree) -> list[Point]:
    """A graph's points for an input, in order of execution."""
    recorder = _Recorder(graph)
    with torch.no_grad():
        recorder.run(inputs)
    return recorder.points


def quantizes_activation(node: fx.Node) -> bool:
    """Whether a node puts an activation, not a constant, on a grid of one scale."""
    if node.op != "call_function" or not str(node.target).startswith(_QUANTIZE):
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and source.op != "get_attr" and is_number(node.args[1])


def reads_grid(node: fx.Node) -> bool:
    """Whether a node dequantizes an activation."""
    return str(node.target).startswith(_DEQUANTIZE)


def is_number(value: object) -> bool:
    """Whether an operator's argument is a number, not another value."""
    return isinstance(value, int | float)


def number(value: Any) -> float:
    """An operator's argument that is a number."""
    return float(value)


Matches = dict[fx.Node, list[InnerTensor]]
"""By quantize node the file's tensors that may be its values: several of one shape and scale where
a compiler may have changed their order."""


def matched(points: Sequence[Point], seen: Sequence[InnerTensor]) -> Matches:
    """The file's tensors for those quantize nodes whose values it shows."""
    ours = [_key(point.scale, point.shape) for point in points]
    theirs = [_key(one.scale, one.values.shape) for one in seen]
    matcher = SequenceMatcher(a=ours, b=theirs, autojunk=False)
    alike: dict[Any, list[InnerTensor]] = {}
    for key, tensor in zip(theirs, seen, strict=True):
        alike.setdefault(key, []).append(tensor)
    matches = {
        points[block.a + step].node: alike[theirs[block.b + step]]
        for block in matcher.get_matching_blocks()
        for step in range(block.size)
    }
    _share(points, matches)
    return matches


def _share(points: Sequence[Point], matches: Matches) -> None:
    """Match a point with the tensor of the one behind it where the file has one tensor for both: a
    converter drops what leaves values and grid as they are (a mean of one value, a reshape). What
    else reads the first would otherwise not be judged on the file's input."""
    known = {point.node: point for point in points}
    for point in reversed(points):
        before = known.get(_point_behind(point.node))
        if point.node not in matches or before is None or before.node in matches:
            continue
        same = before.scale == point.scale and before.steps.numel() == point.steps.numel()
        if same and torch.equal(before.steps.flatten(), point.steps.flatten()):
            matches[before.node] = matches[point.node]


def unseen(points: Sequence[Point], matches: Matches) -> list[Point]:
    """The points that the file does not show and that round: not those that put the values of
    another point, all of them once, on the same grid again (a reshape, a transposition)."""
    known = {point.node: point for point in points}
    hidden = [point for point in points if point.node not in matches]
    return [each for each in hidden if not _moves_only(each, known.get(_point_behind(each.node)))]


def _moves_only(point: Point, before: Point | None) -> bool:
    if before is None or before.scale != point.scale:
        return False
    mine, theirs = (each.steps.flatten().sort().values for each in (point, before))
    return torch.equal(mine, theirs)


def _point_behind(node: fx.Node) -> Any:
    """The quantize node whose values a quantize node reads through operators of one input; None if
    there are several."""
    source: Any = node.args[0]
    while isinstance(source, fx.Node) and not reads_grid(source):
        before = source.all_input_nodes
        source = before[0] if len(before) == 1 else None
    return source.args[0] if isinstance(source, fx.Node) else None


def _key(scale: float, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """A key that is equal for the same tensor in channels-first and channels-last order."""
    return f"{np.float32(scale):.5g}", tuple(sorted(size for size in shape if size > 1))
