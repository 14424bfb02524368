"""Rewrites an Einstein sum of two values as one matrix product between permutations, which every
backend has in integers. PyTorch's own composition brings both to three dimensions first."""

from typing import Any

import torch
from torch import fx

from edgekd.quant.inserting import insert_call, replace_by

aten = torch.ops.aten


def rewrite_einsum(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Replace a sum over one index of two values that have one index each for themselves, such as
    `bhid,bhjd->bhij`. False for another one, which stays."""
    equation, values = node.args[:2]
    given, arrow, wanted = str(equation).replace(" ", "").partition("->")
    names = given.split(",")
    if not arrow or len(names) != 2 or not all(map(_plain, [*names, wanted])):
        return False
    first, second = names
    batch = [name for name in wanted if name in first and name in second]
    rows = [name for name in first if name not in second]
    columns = [name for name in second if name not in first]
    summed = [name for name in first if name in second and name not in wanted]
    if [len(rows), len(columns), len(summed)] != [1, 1, 1]:
        return False
    if sorted(wanted) != sorted([*batch, *rows, *columns]):
        return False
    x, y = list(values)  # type: ignore[arg-type]
    with graph.graph.inserting_before(node):
        left = _ordered(graph, x, first, [*batch, *rows, *summed], node)
        right = _ordered(graph, y, second, [*batch, *summed, *columns], node)
        product = insert_call(graph, aten.matmul.default, (left, right), node)
        made = [*batch, *rows, *columns]
        replace_by(node, _ordered(graph, product, "".join(made), list(wanted), node))
    return True


def _plain(names: str) -> bool:
    return names.isalpha() and len(set(names)) == len(names)


def _ordered(graph: fx.GraphModule, x: Any, have: str, wanted: list[str], like: fx.Node) -> fx.Node:
    order = [have.index(name) for name in wanted]
    if order == sorted(order):
        found: fx.Node = x
        return found
    return insert_call(graph, aten.permute.default, (x, order), like)
