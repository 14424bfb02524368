"""Rewrites values that are repeated or expanded as concatenations, which every backend moves with
its layout. TFLite's converter broadcasts images in the wrong one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgekd.quant.inserting import insert_call, replace_by
from edgekd.quant.regions import is_float

aten = torch.ops.aten

ARITHMETIC = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
"""Operators that expand their operands themselves."""

_MOST_COPIES = 64
"""Values that are repeated more often stay as they are."""

_IMAGE = 4
"""The rank of tensors whose layout a converter changes."""


def rewrite_repeat(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `repeat` and `tile` by concatenations; samples are expanded over the batch."""
    x: Any = node.args[0]
    counts: Any = node.args[1]
    value = x.meta["val"]
    if len(counts) != value.dim():
        return
    batch, *others = counts
    open_batch = not isinstance(batch, int)
    if open_batch and (value.shape[0] != 1 or not is_float(node)):
        return
    copies = [1 if open_batch else batch, *others]
    if any(not isinstance(count, int) or not 1 <= count <= _MOST_COPIES for count in copies):
        return
    with graph.graph.inserting_before(node):
        x = _copied(graph, x, copies, node)
        if open_batch:
            sizes = [batch, *[-1] * len(others)]
            expanded = graph.graph.call_function(aten.expand.default, (x, sizes))
            expanded.meta.update(node.meta)
            x = expanded
    node.replace_all_uses_with(x)
    graph.graph.erase_node(node)


def rewrite_expand(graph: fx.GraphModule, node: fx.Node) -> None:
    """Let arithmetic read a value before it is expanded, and copy the values of an image. Over the
    batch it stays expanded."""
    x: Any = node.args[0]
    shape = tuple(node.meta["val"].shape)
    for user in list(node.users):
        others = [each for each in user.all_input_nodes if each is not node]
        if user.target in ARITHMETIC and [tuple(each.meta["val"].shape) for each in others] == [
            shape
        ]:
            user.replace_input_with(node, x)
    if not node.users:
        graph.graph.erase_node(node)
    elif len(shape) == _IMAGE and x.meta["val"].dim() == _IMAGE and is_float(node):
        _copy_image(graph, node)


def _copy_image(graph: fx.GraphModule, node: fx.Node) -> None:
    x: Any = node.args[0]
    have, wanted = x.meta["val"].shape, node.meta["val"].shape
    copies = [
        size if isinstance(size, int) and isinstance(before, int) and before == 1 else 1
        for before, size in zip(have[1:], wanted[1:], strict=True)
    ]
    if max(copies) == 1 or max(copies) > _MOST_COPIES:
        return
    with graph.graph.inserting_before(node):
        copied = _copied(graph, x, [1, *copies], node)
    if str(have[0]) == str(wanted[0]):
        replace_by(node, copied)
    else:
        sizes: Any = node.args[1]
        if node.target is aten.expand.default:
            sizes = [sizes[0], *[-1] * len(copies)]
        node.args, node.kwargs = (copied, sizes), {}


def _copied(graph: fx.GraphModule, x: fx.Node, counts: Sequence[int], like: fx.Node) -> fx.Node:
    """x so many times along each dimension."""
    for dim, count in enumerate(counts):
        if count > 1:
            x = insert_call(graph, aten.cat.default, ([x] * count, dim), like)
    return x
