"""Products with a constant matrix as linear layers, which have weights to quantize. transformers'
`Conv1D` is `addmm(bias, x, weight)`, and a projection by a plain parameter is `x @ weight`.
"""

from typing import Any

import torch
from torch import fx, nn

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by

aten = torch.ops.aten


def products_to_linear(graph: fx.GraphModule) -> None:
    """Replace each product of a value with a constant matrix (in, out) by a linear layer."""
    for node in list(graph.graph.nodes):
        found = _product(graph, node) if node.op == "call_function" else None
        if found is None:
            continue
        x, matrix, bias = found
        value = constant_of(graph, matrix)
        turned = value.detach().t().contiguous()
        with graph.graph.inserting_before(node):
            weight = insert_constant(
                graph,
                f"{matrix.target}_turned",
                nn.Parameter(turned) if isinstance(value, nn.Parameter) else turned,
                node,
            )
            layer = insert_call(graph, aten.linear.default, (x, weight, bias), node)
        replace_by(node, layer)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _product(graph: fx.GraphModule, node: fx.Node) -> tuple[Any, Any, Any] | None:
    """The value, the constant matrix and the bias of a product; None for another operator."""
    found: tuple[Any, Any, Any] | None
    if node.target is aten.addmm.default and not node.kwargs:
        bias, x, matrix = node.args
        rows = is_constant(bias) and constant_of(graph, bias).dim() == 1  # type: ignore[arg-type]
        found = (x, matrix, bias) if rows else None
    elif node.target in (aten.mm.default, aten.matmul.default):
        found = (node.args[0], node.args[1], None)
    else:
        return None
    if found is None or is_constant(found[0]) or not is_constant(found[1]):
        return None
    value = constant_of(graph, found[1])  # type: ignore[arg-type]
    return found if value.dim() == 2 and value.is_floating_point() else None
