"""What a node of a quantized graph reads and gives, as the recognizers need it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from edgekd.backends.tvm.integers.grid import grid_of
from edgekd.backends.tvm.integers.steps import Value
from edgekd.quant import ops
from edgekd.quant.clamps import clamp_bounds
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.rewrite import DEQUANTIZE

aten = torch.ops.aten


@dataclass(frozen=True)
class Clamp:
    """The clamp that directly follows an operator: its node and its bounds."""

    node: fx.Node
    least: float | None
    most: float | None


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's tensor for a batch of one."""
    while "val" not in node.meta:
        node = node.args[0]
    return tuple(_size(each) for each in node.meta["val"].shape)


def _size(size: Any) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def value_of(graph: fx.GraphModule, node: Any) -> Value | None:
    """The quantized tensor that a dequantize node reads; None for any other node."""
    if not isinstance(node, fx.Node) or node.target not in DEQUANTIZE or len(node.args) != 6:
        return None
    grid, source = grid_of(node), node.args[0]
    if grid is None or not isinstance(source, fx.Node):
        return None
    if not is_constant(source):
        return Value(source.name, shape_of(source), grid)
    integers = constant_of(graph, source).numpy()
    return Value(source.name, tuple(integers.shape), grid, integers)


def array_of(graph: fx.GraphModule, node: Any) -> np.ndarray:
    """The values of a constant."""
    return constant_of(graph, node).detach().numpy()


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """An argument given by position, by name, or not at all."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def pair(sizes: Any) -> tuple[int, int]:
    """A number, a list of one or a list of two as two numbers."""
    numbers = [sizes] if isinstance(sizes, int) else list(sizes)
    return int(numbers[0]), int(numbers[-1])


def clamp_of(node: fx.Node) -> Clamp | None:
    """The clamp that is the one reader of a node's result, if the node can take it over."""
    if node.target not in ops.FUSABLE or len(node.users) != 1:
        return None
    user = next(iter(node.users))
    bounds = clamp_bounds(user)
    return None if bounds is None else Clamp(user, *bounds)
