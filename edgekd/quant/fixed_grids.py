"""Values whose int8 grid is fixed by TFLite's operator specification, whatever range they have: the
results of sigmoid, softmax and tanh, and what only moves or pools those.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekd.quant import ops
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE
from edgekd.values.target import Scheme

aten = torch.ops.aten

PADS = {aten.constant_pad_nd.default, aten.pad.default}


@dataclass(frozen=True)
class FixedGrid:
    """An int8 grid from -128 to 127."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The smallest value."""
        return (-128 - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest value."""
        return (127 - self.zero_point) * self.scale


WIDE_GRID = FixedGrid(1 / 32768, 0)
"""That of every such value where activations have 16 bits (TFLite's specification of int16)."""


def has_fixed_grids(scheme: Scheme) -> bool:
    """Whether a scheme has the zero points that fixed grids need; no TFLite file is symmetric."""
    return scheme.activations != "int8-symmetric"


def fixed_grid(node: Any) -> FixedGrid | None:
    """The grid that a value must have, in a float, a fake-quantized or a quantized graph."""
    while isinstance(node, fx.Node):
        if node.target in ops.FIXED:
            return FixedGrid(*ops.FIXED[node.target])
        if node.target in ops.JOINED:
            grids = {fixed_grid(part) for part in ops.joined_by(node)}
            return grids.pop() if len(grids) == 1 else None
        if not _keeps_its_grid(node):
            return None
        node = node.args[0]
    return None


def _keeps_its_grid(node: fx.Node) -> bool:
    if node.op == "call_module":  # a fake quantizer
        return True
    return node.target in ops.SHARED | QUANTIZE | DEQUANTIZE


def free_from_fixed_grids(graph: fx.GraphModule, joins: list[fx.Node]) -> None:
    """Insert a change of grid where a value on a fixed grid would have to be on another: before
    concatenations with other values, and before paddings with a number that the grid lacks."""
    for node in joins:
        if fixed_grid(node) is None:
            for part in ops.joined_by(node):
                if fixed_grid(part) is not None:
                    insert_regrid(graph, part, node)
    for node in list(graph.graph.nodes):
        grid = fixed_grid(node.args[0]) if node.target in PADS else None
        if grid is not None and not grid.low <= pad_value(node) <= grid.high:
            insert_regrid(graph, node.args[0], node)
    graph.recompile()


def insert_regrid(graph: fx.GraphModule, value: fx.Node, user: fx.Node) -> None:
    """Let `user` read a value on a grid of its own."""
    with graph.graph.inserting_before(user):
        moved = graph.graph.call_function(ops.REGRID, (value,))
    moved.meta.update(value.meta)
    user.replace_input_with(value, moved)


def pad_value(node: fx.Node) -> float:
    """The number that a padding fills in."""
    place = 2 if node.target is aten.constant_pad_nd.default else 3
    value: Any = node.args[place] if len(node.args) > place else node.kwargs.get("value", 0.0)
    return 0.0 if value is None else float(value)
