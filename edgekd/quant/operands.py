"""Rewrites numbers and constants in arithmetic for integer kernels. A kernel adds or multiplies two
integer tensors, each with its own scale. So numbers become one-element constants, and a division by
a constant becomes a multiplication.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.constants import add_constant, constant_of, free_name, is_constant
from edgekd.quant.regions import divides_by_constant, integer_nodes, is_float

aten = torch.ops.aten

_BINARY = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}


def make_operands_tensors(graph: fx.GraphModule) -> None:
    """Rewrite integer arithmetic so that every operand is a tensor."""
    for node in graph.graph.nodes:
        if node.target is aten.rsub.Scalar and is_float(node) and len(node.args) == 2:
            node.target, node.args = aten.sub.Tensor, (node.args[1], node.args[0])
    for node in integer_nodes(graph):
        if divides_by_constant(node):
            _multiply_instead(graph, node)
        if node.target in _BINARY:
            node.args = tuple(
                _tensor(graph, node, each) if place < 2 else each
                for place, each in enumerate(node.args)
            )
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _multiply_instead(graph: fx.GraphModule, node: fx.Node) -> None:
    divisor: Any = node.args[1]
    value = constant_of(graph, divisor).detach() if is_constant(divisor) else torch.tensor(divisor)
    factor = 1.0 / value.to(node.meta["val"].dtype)
    if not bool(factor.isfinite().all()):
        return
    node.target = aten.mul.Tensor
    node.args = (node.args[0], _added(graph, node, factor))


def _tensor(graph: fx.GraphModule, node: fx.Node, operand: Any) -> Any:
    if not isinstance(operand, int | float):
        return operand
    return _added(graph, node, torch.tensor(float(operand), dtype=node.meta["val"].dtype))


def _added(graph: fx.GraphModule, node: fx.Node, value: Tensor) -> fx.Node:
    """A constant for `node`, with as many dimensions as its result."""
    result: Tensor = node.meta["val"]
    value = value.reshape([1] * (result.dim() - value.dim()) + list(value.shape))
    with graph.graph.inserting_before(node):
        constant = add_constant(graph, free_name(graph, f"{node.name}_operand"), value)
    constant.meta["val"] = result.fake_mode.from_tensor(value, static_shapes=True)  # type: ignore[attr-defined]
    return constant
