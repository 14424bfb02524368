"""Rewrites `nn.Bilinear` as a linear layer and a product, which every backend has."""

from typing import Any

import torch
from torch import fx, nn

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by

aten = torch.ops.aten


def rewrite_bilinear(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace y_o = sum_ij x1_i W_oij x2_j + b_o for samples (N, features): a linear layer gives
    sum_j W_oij x2_j for each output and each i."""
    first, second, weight, *rest = node.args
    bias: Any = rest[0] if rest else node.kwargs.get("bias")
    if not is_constant(weight) or node.meta["val"].dim() != 2:
        return
    values = constant_of(graph, weight)  # type: ignore[arg-type]
    outputs, features, _ = values.shape
    rows = nn.Parameter(values.detach().reshape(outputs * features, -1))
    with graph.graph.inserting_before(node):
        matrix = insert_constant(graph, f"{node.name}_rows", rows, node)
        linear = insert_call(graph, aten.linear.default, (second, matrix), node)
        shape = [-1, outputs, features]
        parts = insert_call(graph, aten.reshape.default, (linear, shape), node)
        column = insert_call(graph, aten.unsqueeze.default, (first, 1), node)
        products = insert_call(graph, aten.mul.Tensor, (parts, column), node)
        mean = insert_call(graph, aten.mean.dim, (products, [2]), node)
        result = insert_call(graph, aten.mul.Tensor, (mean, float(features)), node)
        if bias is not None:
            result = insert_call(graph, aten.add.Tensor, (result, bias), node)
        replace_by(node, result)
