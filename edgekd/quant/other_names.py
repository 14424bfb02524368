"""Rewrites operators that are another one by another name, or a composition of others, in the
operators that the quantizer and every backend know: `swapaxes`, `concat`, `clip`, `einsum`."""

from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from edgekd.quant.einsum import rewrite_einsum
from edgekd.quant.inserting import insert_call, insert_constant, replace_by
from edgekd.quant.slices import rewrite_slice

aten = torch.ops.aten

_COMPOSED = {
    getattr(packet, name or "default")
    for packet in (
        aten.absolute, aten.adjoint, aten.arctan, aten.atleast_2d, aten.atleast_3d, aten.clip,
        aten.column_stack, aten.concat, aten.concatenate, aten.divide, aten.dstack, aten.einsum,
        aten.fliplr, aten.flipud, aten.hsplit, aten.hstack, aten.matrix_H, aten.mH, aten.moveaxis,
        aten.mT, aten.multiply, aten.negative, aten.numpy_T, aten.ravel, aten.repeat_interleave,
        aten.reshape_as, aten.special_exp2, aten.special_expit, aten.special_expm1,
        aten.special_log1p, aten.subtract, aten.swapaxes, aten.swapdims, aten.tensordot,
        aten.true_divide, aten.type_as, aten.view_as, aten.vsplit, aten.vstack,
    )
    for name in packet._overload_names
}  # fmt: skip
"""Operators that PyTorch composes of others itself, and that exporters leave whole."""


def write_out_names(graph: fx.GraphModule) -> None:
    """Replace each of them by what it is composed of; one that can't be stays."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in _COMPOSED:
            continue
        if node.target is not aten.einsum.default or not rewrite_einsum(graph, node):
            _write_out(graph, node)
    graph.graph.eliminate_dead_code()


def _write_out(graph: fx.GraphModule, node: fx.Node) -> None:
    given = node.all_input_nodes
    values = [each.meta["val"] for each in given]

    def composed(*tensors: Any) -> Any:
        known = dict(zip(given, tensors, strict=True))
        args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    traced = make_fx(composed, _allow_non_fake_inputs=True)(*values)
    inner = traced.graph.nodes
    if any(each.op == "get_attr" for each in inner):
        return
    known: dict[fx.Node, Any] = {}
    inputs = iter(given)
    with graph.graph.inserting_before(node):
        for each in inner:
            if each.op == "placeholder":
                known[each] = next(inputs)
            elif each.op == "output":
                result = fx.map_arg(each.args[0], known.__getitem__)
            else:
                known[each] = graph.graph.node_copy(each, known.__getitem__)
                known[each].meta = {**node.meta, "val": each.meta["val"]}
    if isinstance(result, fx.Node):
        replace_by(node, result)
        return
    for user in list(node.users):
        replace_by(user, result[user.args[1]])
    graph.graph.erase_node(node)


def rewrite_clamp_max(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace an upper bound by a clamp without a lower one."""
    node.target, node.args = aten.clamp.default, (node.args[0], None, node.args[1])


def rewrite_largest(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `max` or `min` along a dimension by the values alone, where no place is read."""
    if any(user.args[1] != 0 for user in node.users):
        return
    target = aten.amax.default if node.target is aten.max.dim else aten.amin.default
    x, dim, *keep = node.args
    with graph.graph.inserting_before(node):
        found = insert_call(graph, target, (x, [dim], *keep), _first(node))
    for user in list(node.users):
        replace_by(user, found)
    graph.graph.erase_node(node)


def rewrite_gated(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `glu` by the first half times the sigmoid of the second."""
    x: Any = node.args[0]
    dim: Any = node.args[1] if len(node.args) > 1 else -1
    size = x.meta["val"].shape[dim]
    if not isinstance(size, int):
        return
    dim %= x.meta["val"].dim()
    with graph.graph.inserting_before(node):
        halves = [
            insert_call(graph, aten.slice.Tensor, (x, dim, start, start + size // 2), node)
            for start in (0, size // 2)
        ]
        gate = insert_call(graph, aten.sigmoid.default, (halves[1],), node)
        replace_by(node, insert_call(graph, aten.mul.Tensor, (halves[0], gate), node))
    for half in halves:
        rewrite_slice(graph, half)


def rewrite_added_product(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `baddbmm` and `addcmul` by a product and a sum."""
    total, x, y = node.args
    alone = all(node.kwargs.get(name, 1) == 1 for name in ("beta", "alpha", "value"))
    if not alone:
        return
    target = aten.bmm.default if node.target is aten.baddbmm.default else aten.mul.Tensor
    with graph.graph.inserting_before(node):
        product = insert_call(graph, target, (x, y), node)
        replace_by(node, insert_call(graph, aten.add.Tensor, (product, total), node))


def rewrite_filled(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace numbers in `where`, `masked_fill` and `threshold` by constants, which share a grid
    with what they are chosen from. `masks` fits those that mask scores."""
    if node.target is aten.where.ScalarOther:
        mask, x, number = node.args
    elif node.target is aten.where.ScalarSelf:
        mask, number, x = node.args
    elif node.target is aten.masked_fill.Scalar:
        x, mask, number = node.args
    else:
        x, least, number = node.args
        mask = None
    if not isinstance(number, int | float) or number > _HIGHEST or not _is_float(x):
        return
    with graph.graph.inserting_before(node):
        if mask is None:
            mask = insert_call(graph, aten.gt.Scalar, (x, least), node)
        value = insert_constant(graph, f"{node.name}_number", torch.full((1,), float(number)), node)
        if node.target in _NUMBER_FIRST:
            mask = insert_call(graph, aten.logical_not.default, (mask,), node)
        replace_by(node, insert_call(graph, aten.where.self, (mask, x, value), node))


_HIGHEST = 1e4
"""Numbers above stay as they are: a grid for them has no levels for anything else."""

_NUMBER_FIRST = {aten.where.ScalarSelf, aten.masked_fill.Scalar}


def rewrite_nearest(graph: fx.GraphModule, node: fx.Node) -> None:
    """Name the nearest neighbor by the older operator where sizes grow by whole factors, for which
    both pick the same."""
    x: Any = node.args[0]
    before, after = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
    sizes = [*before, *after]
    if all(isinstance(size, int) for size in sizes) and not any(
        new % old for old, new in zip(before, after, strict=True)
    ):
        node.target = aten.upsample_nearest2d.vec


def _is_float(node: Any) -> bool:
    return bool(node.meta["val"].is_floating_point())


def _first(node: fx.Node) -> fx.Node:
    return next(iter(node.users))
