"""Makes an exported program functional: no in-place operators, no nested regions. Quantization
inserts operators between others, so an in-place operator would change a copy of its input.
"""

import math
from typing import Any, cast

import torch
from torch import fx
from torch.export import ExportedProgram

from edgekd.errors import InputError
from edgekd.network.fx_names import layer_of
from edgekd.quant.adaptive_max import rewrite_adaptive_max
from edgekd.quant.bilinear import rewrite_bilinear
from edgekd.quant.constants import is_constant
from edgekd.quant.in_place import without_in_place
from edgekd.quant.inserting import insert_call, replace_by
from edgekd.quant.masked_put import rewrite_masked_put
from edgekd.quant.named_padding import rewrite_named_padding
from edgekd.quant.other_names import (
    rewrite_added_product,
    rewrite_clamp_max,
    rewrite_filled,
    rewrite_gated,
    rewrite_largest,
    rewrite_nearest,
    write_out_names,
)
from edgekd.quant.recurrent import unroll_recurrent
from edgekd.quant.repeats import ARITHMETIC, rewrite_expand, rewrite_repeat
from edgekd.quant.slices import (
    rewrite_narrow,
    rewrite_scatter,
    rewrite_select_scatter,
    rewrite_slice,
)

aten = torch.ops.aten


def functional(
    program: ExportedProgram, where: str, *, keep_layers: bool = False
) -> fx.GraphModule:
    """The graph of a program, with in-place operators replaced and regions inlined. Parts under
    `torch.no_grad` or a disabled `torch.autocast` become plain operators. Recurrent layers are
    unrolled; with `keep_layers`, those that ONNX has an operator for stay whole. Raises
    `InputError` for a network whose output depends on other samples or on earlier calls.
    """
    _refuse_batch_statistics(program, where)
    graph = _without_effects(program)
    unroll_recurrent(graph, where, keep_layers=keep_layers)
    _drop_mutations(graph, where)
    write_out_names(graph)
    for node in list(graph.graph.nodes):
        if node.users and node.op == "call_function" and node.target in _REWRITES:
            _REWRITES[node.target](graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _without_effects(program: ExportedProgram) -> fx.GraphModule:
    """The program's graph without nested regions and in-place operators."""
    if not any(_is_region(node) for node in program.graph.nodes):
        graph: Any = program.module(check_guards=False)
        if without_in_place(graph.graph):
            return cast(fx.GraphModule, graph)
    return cast(fx.GraphModule, program.run_decompositions({}).module(check_guards=False))


def _is_region(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def _refuse_batch_statistics(program: ExportedProgram, where: str) -> None:
    for node in program.graph.nodes:
        if node.target is not aten.batch_norm.default:
            continue
        _, _, _, mean, variance, training, *_ = node.args
        if training or mean is None or variance is None:
            raise InputError(
                f"batch norm '{layer_of(node)}' uses batch statistics at inference, so a sample's "
                "output depends on the other samples",
                where=where,
                hint="train with track_running_stats=True, or use nn.InstanceNorm or nn.GroupNorm",
            )


def _drop_mutations(graph: fx.GraphModule, where: str) -> None:
    """Remove the copies into inputs and buffers at the end of a program's module."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.copy_.default:
            continue
        target: Any = node.args[0]
        node.replace_all_uses_with(node.args[1])
        graph.graph.erase_node(node)
        graph.graph.eliminate_dead_code()
        if is_constant(target) and target in graph.graph.nodes and target.users:
            raise InputError(
                f"forward() changes the buffer '{target.target}', so its output depends on "
                "earlier calls",
                where=where,
                hint="keep the state outside the model: take it as an input and return it",
            )


def _rewrite_batch_norm(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `_native_batch_norm_legit_no_training` and its first item by `batch_norm`."""
    arguments: tuple[Any, ...] = node.args
    x, gamma, beta, mean, variance, momentum, epsilon = arguments
    for user in list(node.users):
        assert user.args[1] == 0
        with graph.graph.inserting_before(user):
            norm = graph.graph.call_function(
                aten.batch_norm.default,
                (x, gamma, beta, mean, variance, False, momentum, epsilon, False),
            )
        norm.meta.update(user.meta)
        user.replace_all_uses_with(norm)
        graph.graph.erase_node(user)
    graph.graph.erase_node(node)


def _rewrite_view(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace a view by a reshape, with -1 for the one size that depends on the batch.

    No operator computes that size then, and backends may hand the graph inputs in another layout,
    whose strides a view would refuse.
    """
    node.target = aten.reshape.default
    sizes: Any = node.args[1]
    shape = node.meta["val"].shape
    free = [size for size in shape if not isinstance(size, int)]
    if any(isinstance(size, fx.Node) for size in sizes) and len(free) == 1 and 0 not in shape:
        node.args = (node.args[0], [size if isinstance(size, int) else -1 for size in shape])


def _rewrite_alpha(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `add(x, y, alpha=a)` by the sum of x and a * y, which every backend has."""
    alpha, (x, y) = node.kwargs.get("alpha", 1), node.args
    if alpha == 1:
        return
    if isinstance(y, fx.Node):
        with graph.graph.inserting_before(node):
            scaled = graph.graph.call_function(aten.mul.Tensor, (y, alpha))
        scaled.meta.update({**node.meta, "val": y.meta["val"]})
    node.args = (x, scaled if isinstance(y, fx.Node) else y * alpha)  # type: ignore[operator]
    node.kwargs = {key: each for key, each in node.kwargs.items() if key != "alpha"}


def _rewrite_reversed(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `rsub(x, y, alpha=a)` by y less a * x; converters don't take its `alpha`."""
    x, y, *rest = node.args
    alpha = rest[0] if rest else node.kwargs.get("alpha", 1)
    if node.target is aten.rsub.Scalar and alpha == 1:
        return  # `operands` decides what becomes of the number
    with graph.graph.inserting_before(node):
        if isinstance(y, fx.Node):
            node.target, node.args, node.kwargs = aten.sub.Tensor, (y, x), {"alpha": alpha}
            _rewrite_alpha(graph, node)
        else:
            scaled = graph.graph.call_function(aten.mul.Tensor, (x, alpha))
            scaled.meta.update({**node.meta, "val": x.meta["val"]})  # type: ignore[union-attr]
            node.args, node.kwargs = (scaled, y), {}


def _rewrite_hypot(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `hypot(x, y)` by the root of the sum of both squares; exporters don't take it."""
    x, y = node.args
    with graph.graph.inserting_before(node):
        squares = [insert_call(graph, aten.mul.Tensor, (side, side), node) for side in (x, y)]
        total = insert_call(graph, aten.add.Tensor, tuple(squares), node)
        replace_by(node, insert_call(graph, aten.sqrt.default, (total,), node))


def _rewrite_lerp(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `lerp(x, y, w)` by x plus w times the difference, which every backend has."""
    x, y, weight = node.args
    with graph.graph.inserting_before(node):
        difference = insert_call(graph, aten.sub.Tensor, (y, x), node)
        scaled = insert_call(graph, aten.mul.Tensor, (difference, weight), node)
        replace_by(node, insert_call(graph, aten.add.Tensor, (x, scaled), node))


def _rewrite_copy(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `copy`, whose result is its second argument in the shape and type of its first."""
    target, source = node.args[0], node.args[1]
    before, after = target.meta["val"], source.meta["val"]  # type: ignore[union-attr]
    if before.dtype == after.dtype and tuple(before.shape) == tuple(after.shape):
        node.replace_all_uses_with(source)  # type: ignore[arg-type]
        graph.graph.erase_node(node)


def _rewrite_like(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `ones_like(x)` by a number in arithmetic with a tensor of x's size."""
    values: dict[Any, Any] = {aten.ones_like.default: 1, aten.zeros_like.default: 0}
    value = values.get(node.target, node.args[-1])
    for user in list(node.users):
        same = [each for each in user.args if isinstance(each, fx.Node) and each is not node]
        shapes = [tuple(each.meta["val"].shape) for each in same]
        if user.target in ARITHMETIC and shapes == [tuple(node.meta["val"].shape)]:
            if user.args[0] is node:
                continue  # a number can't stand first
            user.args = (user.args[0], value, *user.args[2:])
    if not node.users:
        graph.graph.erase_node(node)


def _rewrite_stack(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `stack` by a concatenation of values with one more dimension."""
    parts: Any = node.args[0]
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    dim %= node.meta["val"].dim()
    deeper = []
    with graph.graph.inserting_before(node):
        for part in parts:
            value = part.meta["val"]
            deeper.append(graph.graph.call_function(aten.unsqueeze.default, (part, dim)))
            with value.fake_mode:
                deeper[-1].meta.update({**part.meta, "val": value.unsqueeze(dim)})
        joined = graph.graph.call_function(aten.cat.default, (deeper, dim))
    joined.meta.update(node.meta)
    node.replace_all_uses_with(joined)
    graph.graph.erase_node(node)


def _rewrite_roll(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `roll` by a concatenation of both parts of each dimension, which have grids of their
    own: ONNX Runtime (1.31) can't load a signed int8 file in which the exporter cuts them out."""
    x: Any = node.args[0]
    shifts: Any = node.args[1]
    dims: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dims", [])
    sizes = [x.meta["val"].shape[dim] for dim in dims]
    if len(dims) != len(shifts) or not all(isinstance(size, int) for size in sizes):
        return
    with graph.graph.inserting_before(node):
        for shift, dim, size in zip(shifts, dims, sizes, strict=True):
            begin = -shift % size
            if begin == 0:
                continue
            ends = ((begin, size), (0, begin))
            parts = [insert_call(graph, aten.slice.Tensor, (x, dim, *end, 1), node) for end in ends]
            x = insert_call(graph, aten.cat.default, (parts, dim), node)
    node.replace_all_uses_with(x)
    graph.graph.erase_node(node)


def _rewrite_mean(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace a mean over dimensions of one element by a reshape. TFLite's converter would make a
    sum of it, and its reference kernel for integers gives other values than its fast one."""
    x: Any = node.args[0]
    dims: Any = node.args[1]
    shape = x.meta["val"].shape
    left = node.meta["val"].shape
    if not dims or any(shape[dim] != 1 for dim in dims) or node.kwargs.get("dtype"):
        return
    sizes = [size if isinstance(size, int) else -1 for size in left]
    if sizes.count(-1) > 1:
        return
    node.target, node.args, node.kwargs = aten.reshape.default, (x, sizes), {}


def _rewrite_sum(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace a sum over dimensions by a mean times their size, which has exact integer kernels."""
    x: Any = node.args[0]
    dims: Any = node.args[1]
    value = x.meta["val"]
    sizes = [value.shape[dim] for dim in dims or range(value.dim())]
    plain = value.is_floating_point() and not node.kwargs.get("dtype")
    if not plain or not sizes or not all(isinstance(size, int) for size in sizes):
        return
    with graph.graph.inserting_before(node):
        mean = graph.graph.call_function(aten.mean.dim, (x, *node.args[1:]))
        mean.meta.update(node.meta)
        total = graph.graph.call_function(aten.mul.Tensor, (mean, float(math.prod(sizes))))
    total.meta.update(node.meta)
    node.replace_all_uses_with(total)
    graph.graph.erase_node(node)


def slice_splits(graph: fx.GraphModule) -> None:
    """Replace each part of a split or chunk by a slice: one operator, one value, one grid."""
    for node in list(graph.graph.nodes):
        if node.target is aten.unbind.int:
            _select_parts(graph, node)
        if node.target not in _SPLITS:
            continue
        dim: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        x: Any = node.args[0]
        dim %= x.meta["val"].dim()
        sizes = [part.shape[dim] for part in node.meta["val"]]
        if not all(isinstance(size, int) for size in sizes):
            continue
        for user in list(node.users):
            start = sum(sizes[: user.args[1]])
            end = start + sizes[user.args[1]]
            with graph.graph.inserting_before(user):
                part = graph.graph.call_function(aten.slice.Tensor, (x, dim, start, end))
            part.meta.update(user.meta)
            user.replace_all_uses_with(part)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    graph.recompile()


def _select_parts(graph: fx.GraphModule, node: fx.Node) -> None:
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    for user in list(node.users):
        with graph.graph.inserting_before(user):
            part = graph.graph.call_function(aten.select.int, (node.args[0], dim, user.args[1]))
        part.meta.update(user.meta)
        user.replace_all_uses_with(part)
        graph.graph.erase_node(user)
    graph.graph.erase_node(node)


_SPLITS = {
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unsafe_chunk.default,
    aten.tensor_split.sections,
}

_REWRITES = {
    aten._native_batch_norm_legit_no_training.default: _rewrite_batch_norm,
    aten.add.Tensor: _rewrite_alpha,
    aten.sub.Tensor: _rewrite_alpha,
    aten.rsub.Tensor: _rewrite_reversed,
    aten.rsub.Scalar: _rewrite_reversed,
    aten.view.default: _rewrite_view,
    aten._unsafe_view.default: _rewrite_view,
    aten.reshape.default: _rewrite_view,
    aten.narrow.default: rewrite_narrow,
    aten.slice.Tensor: rewrite_slice,
    aten.slice_scatter.default: rewrite_scatter,
    aten.select_scatter.default: rewrite_select_scatter,
    aten.lerp.Scalar: _rewrite_lerp,
    aten.lerp.Tensor: _rewrite_lerp,
    aten.conv1d.padding: rewrite_named_padding,
    aten.conv2d.padding: rewrite_named_padding,
    aten.conv3d.padding: rewrite_named_padding,
    aten.copy.default: _rewrite_copy,
    aten.clamp_max.default: rewrite_clamp_max,
    aten.where.ScalarOther: rewrite_filled,
    aten.where.ScalarSelf: rewrite_filled,
    aten.masked_fill.Scalar: rewrite_filled,
    aten.threshold.default: rewrite_filled,
    aten._upsample_nearest_exact2d.vec: rewrite_nearest,
    aten.max.dim: rewrite_largest,
    aten.min.dim: rewrite_largest,
    aten.glu.default: rewrite_gated,
    aten.baddbmm.default: rewrite_added_product,
    aten.addcmul.default: rewrite_added_product,
    aten.hypot.default: _rewrite_hypot,
    aten.bilinear.default: rewrite_bilinear,
    aten.adaptive_max_pool1d.default: rewrite_adaptive_max,
    aten.adaptive_max_pool2d.default: rewrite_adaptive_max,
    aten.index_put.default: rewrite_masked_put,
    aten.stack.default: _rewrite_stack,
    aten.roll.default: _rewrite_roll,
    aten.repeat.default: rewrite_repeat,
    aten.tile.default: rewrite_repeat,
    aten.sum.dim_IntList: _rewrite_sum,
    aten.mean.dim: _rewrite_mean,
    aten.expand.default: rewrite_expand,
    aten.expand_as.default: rewrite_expand,
    aten.ones_like.default: _rewrite_like,
    aten.zeros_like.default: _rewrite_like,
    aten.full_like.default: _rewrite_like,
}
