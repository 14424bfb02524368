"""Turns a quantized graph into one that TFLite's converter keeps as it is. Constants are floats
that are quantized again, changes of the grid are operators, and what is joined in float stays so.
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.clamps import clamp_bounds, saturates
from edgekd.quant.coarse_softmax import ON_OWN_GRID
from edgekd.quant.constants import add_constant, constant_of, free_name, is_constant
from edgekd.quant.fixed_grids import fixed_grid
from edgekd.quant.rewrite import (
    DEQUANTIZE,
    QUANTIZE,
    dequantized,
    is_layer_weight,
    is_weight,
    on_grid,
    quantized,
    replace_node,
)
from edgekd.quant.shielding import shield_wide, twice_marked

aten = torch.ops.aten

_PICKING = {aten.where.self} | ops.JOINED
_AVERAGING = {
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.upsample_bilinear2d.vec,
}
_ONE = "_one"
"""The end of the names of constants that are one."""


def unfolded(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy with float constants: weights followed by a quantize op again, biases plain. Some
    converters read a scale only from a quantize op, and store biases themselves. The floats are
    exactly on their grids, so quantizing them again gives the same integers.
    """
    restored = copy.deepcopy(graph)
    for node in list(restored.graph.nodes):
        if node.target not in DEQUANTIZE or not is_constant(node.args[0]):
            continue
        value = dequantized(restored, node)
        name = f"{node.args[0].target}_float"
        if node.args[-1] is torch.int32:
            replace_node(restored, node, name, value)
        else:
            _quantize_again(restored, node, name, value)
    shield_wide(restored)
    _keep_softmax_in_float(restored)
    _express_regrids(restored)
    _clamp_by_saturating(restored)
    _keep_picks_in_float(restored)
    _keep_inputs_in_float(restored)
    _keep_averages_in_float(restored)
    _keep_sums_in_float(restored)
    convolve_columns(restored)
    restored.graph.eliminate_dead_code()
    restored.recompile()
    return restored


def value_of(node: Any) -> Tensor:
    """An example of a node's value, for its shape and type. Quantize and dequantize operators that
    training put in have none, and the shape of what they read."""
    while "val" not in node.meta:
        if is_constant(node):
            return constant_of(node.graph.owning_module, node)
        node = node.args[0]
    value: Tensor = node.meta["val"]
    return value


def _keep_softmax_in_float(graph: fx.GraphModule) -> None:
    """Put a ReLU, which changes nothing, behind each softmax without a fixed grid. TFLite's
    converter would make an integer kernel of it, which computes for the fixed grid alone."""
    for node in list(graph.graph.nodes):
        if node.target is not ON_OWN_GRID:
            continue
        with graph.graph.inserting_after(node):
            kept = graph.graph.call_function(aten.relu.default, (node,))
        kept.meta.update(node.meta)
        node.replace_all_uses_with(kept, delete_user_cb=lambda user, kept=kept: user is not kept)


def convolve_columns(graph: fx.GraphModule) -> None:
    """Replace linear layers over images (N, H, W, C) one column or row wide by convolutions 1 x 1.
    TFLite's converter drops the size of one before such a layer, and does not put it back.
    """
    for node in list(graph.graph.nodes):
        if node.target is not aten.linear.default:
            continue
        shape = value_of(node.args[0]).shape
        if len(shape) != 4 or 1 not in (shape[1], shape[2]):
            continue
        with graph.graph.inserting_before(node):
            planes = _permuted(graph, node.args[0], (0, 3, 1, 2))
            weight = _kernel(graph, node.args[1])
            arguments = (planes, weight, *node.args[2:])
            convolved = graph.graph.call_function(aten.conv2d.default, arguments)
            columns = _permuted(graph, convolved, (0, 2, 3, 1))
        columns.meta.update(node.meta)
        node.replace_all_uses_with(columns)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _permuted(graph: fx.GraphModule, value: Any, order: tuple[int, ...]) -> fx.Node:
    return graph.graph.call_function(aten.permute.default, (value, order))


def _kernel(graph: fx.GraphModule, weight: fx.Node) -> fx.Node:
    """The weight of a linear layer (O, I), quantized or not, as a kernel (O, I, 1, 1)."""
    if is_constant(weight):
        value = constant_of(graph, weight).detach()[..., None, None]
        return add_constant(graph, free_name(graph, f"{weight.target}_kernel"), value)
    source: Any = weight.args[0]
    return graph.graph.call_function(weight.target, (_kernel(graph, source), *weight.args[1:]))  # type: ignore[arg-type]


def _express_regrids(graph: fx.GraphModule) -> None:
    """Quantize directly to the second grid where a value changes its grid immediately. TFLite's
    converter drops a quantize op after a dequantize op, whatever their scales. Where the first grid
    must stay, because it is fixed or has other readers, an operator that keeps the values rescales:
    a ReLU of values that are never negative, else a product with one.
    """
    for node in list(graph.graph.nodes):
        source: Any = node.args[0] if node.target in QUANTIZE else None
        if not isinstance(source, fx.Node) or source.target not in DEQUANTIZE or is_weight(node):
            continue
        first: Any = source.args[0]
        if node.args[-1] is not source.args[-1]:
            node.replace_input_with(source, twice_marked(graph, source))
            continue
        earlier = _grids_before(source)
        if earlier:
            for each in earlier:
                each.args = (each.args[0], *node.args[1:])
            node.replace_input_with(source, first.args[0])
            continue
        _, _, zero_point, low, *_ = source.args
        with graph.graph.inserting_before(node):
            if zero_point != low:
                kept = graph.graph.call_function(aten.mul.Tensor, (source, _one(graph, source)))
            else:
                kept = graph.graph.call_function(aten.relu.default, (source,))
        kept.meta.update(source.meta)
        node.replace_input_with(source, kept)
    graph.graph.eliminate_dead_code()


def _grids_before(source: Any) -> list[fx.Node]:
    """The quantize and dequantize operators of a value up to the operator that computes it, with
    those on the way that only move it. Empty if the grid must stay: it is fixed, or something else
    reads the value on it."""
    found: list[fx.Node] = []
    while source.target in DEQUANTIZE:
        first = source.args[0]
        alone = len(source.users) == 1 and first.target in QUANTIZE and len(first.users) == 1
        if not alone or fixed_grid(source) is not None:
            return []
        found += [source, first]
        source = first.args[0]
        while source.target in ops.SHARED:
            if len(source.users) > 1:
                return []
            source = source.args[0]
    return found


def _clamp_by_saturating(graph: fx.GraphModule) -> None:
    """Let clamps that change the grid rescale and saturate. TFLite's converter would fuse them to
    the operator before, whatever its own grid is, or clamp on the grid that is read, which need not
    have the bounds. A clamp of 8-bit values that are rescaled first gives the same integers.
    """
    for node in list(graph.graph.nodes):
        bounds = clamp_bounds(node) if node.target in ops.FUSED else None
        source: Any = node.args[0] if node.args else None
        grids = {user.args[1:] if user.target in QUANTIZE else None for user in node.users}
        if bounds is None or source.target not in DEQUANTIZE or len(grids) != 1:
            continue
        before, grid = source.args[1:], grids.pop()
        if grid is None or grid == before or torch.int16 in (before[-1], grid[-1]):
            continue
        with graph.graph.inserting_before(node):
            moved = graph.graph.call_function(aten.mul.Tensor, (source, _one(graph, source)))
            moved.meta.update(node.meta)
            if saturates(bounds, grid):
                node.replace_all_uses_with(moved)
                graph.graph.erase_node(node)
                continue
            numbers = on_grid(graph, moved, grid)
        node.replace_input_with(source, numbers)


def _one(graph: fx.GraphModule, like: fx.Node) -> fx.Node:
    """The number one as a quantized constant of as many dimensions as `like` has. Its step is
    small: that of a product may be at most 256 times smaller than the product of both steps. Each
    has another step, or the converter would merge products that are read on different grids."""
    before = sum(name.endswith(_ONE) for name, _ in graph.named_buffers())
    grid = (1.0 / (127 - before % 64), 0, *like.args[-3:])
    value = torch.ones([1] * value_of(like).dim())
    constant = add_constant(graph, free_name(graph, f"{like.name}_{before}{_ONE}"), value)
    return on_grid(graph, constant, grid)


def _keep_picks_in_float(graph: fx.GraphModule) -> None:
    """Let float operators that join values or pick one of them read and give multiples of two.
    TFLite's converter would put quantized values that such an operator reads on one grid of its own
    choice; products are not on that grid, and two is a factor without rounding.
    """
    for node in list(graph.graph.nodes):
        if node.target not in _PICKING or _is_picked_on_grids(node):
            continue
        _double_within(graph, node, _values(node))


def _keep_inputs_in_float(graph: fx.GraphModule) -> None:
    """Let operators that move a float input read and give multiples of two. TFLite's converter
    would take the grid of what they give back to the input, and so quantize ids that others read.
    """
    for node in list(graph.graph.nodes):
        if node.op != "placeholder" or not node.meta["val"].is_floating_point():
            continue
        if any(user.target in QUANTIZE for user in node.users):
            continue
        for user in [user for user in node.users if user.target in ops.SHARED | ops.JOINED]:
            _double_within(graph, user, [node])


def _keep_averages_in_float(graph: fx.GraphModule) -> None:
    """Let operators that average or take parts of float values read and give multiples of two.
    TFLite's converter would take the grid of their result back to what they read, and clip it."""
    for node in list(graph.graph.nodes):
        if node.target not in _AVERAGING | ops.TAKING or True not in _readers_of(node):
            continue
        source = node.args[0]
        read = _origin(source)
        floats = read.target not in QUANTIZE | DEQUANTIZE and value_of(source).is_floating_point()
        if floats and (node.target in _AVERAGING or len(source.users) > 1):
            _double_within(graph, node, [source])


def _keep_sums_in_float(graph: fx.GraphModule) -> None:
    """Let float sums that are read on a grid and in float as well add multiples of two. TFLite's
    converter would compute them on the grid for all of their readers."""
    for node in list(graph.graph.nodes):
        if node.target not in ops.SUMS:
            continue
        values = node.all_input_nodes
        on_grids = all(each.target in DEQUANTIZE for each in values)
        if on_grids and _readers_of(node) == {True, False}:
            _double_within(graph, node, values)


def _readers_of(node: fx.Node) -> set[bool]:
    """Whether what reads a value, behind operators that only move it, puts it on a grid."""
    found: set[bool] = set()
    for user in node.users:
        found |= _readers_of(user) if user.target in ops.SHARED else {user.target in QUANTIZE}
    return found


def _double_within(graph: fx.GraphModule, node: fx.Node, sources: list[fx.Node]) -> None:
    """Let an operator read twice these values, and what reads it half of what it gives."""
    with graph.graph.inserting_before(node):
        for source in sources:
            doubled = graph.graph.call_function(aten.mul.Tensor, (source, 2.0))
            doubled.meta.update(source.meta)
            node.replace_input_with(source, doubled)
    users = list(node.users)
    with graph.graph.inserting_after(node):
        halved = graph.graph.call_function(aten.mul.Tensor, (node, 0.5))
    halved.meta.update(node.meta)
    for user in users:
        user.replace_input_with(node, halved)


def _is_picked_on_grids(node: fx.Node) -> bool:
    """Whether the values are on one grid, or none, or the converter may change their grids, which
    it does for all that read them."""
    values = [source for source in _values(node) if not is_constant(source)]
    if fixed_grid(node) is None and any(
        fixed_grid(each) for each in values if each.target not in DEQUANTIZE
    ):
        return False
    origins = [_origin(each) for each in values]
    grids = {each.args[1:] if each.target in DEQUANTIZE else None for each in origins}
    if grids <= {None} or (len(grids) == 1 and len(values) > 1):
        return True
    alone = all(len(each.users) == 1 for each in values if _origin(each).target not in DEQUANTIZE)
    return alone and all(user.target in QUANTIZE for user in node.users)


def _origin(node: fx.Node) -> fx.Node:
    """The value that operators which only move values took."""
    while node.target in ops.SHARED and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _values(node: fx.Node) -> list[fx.Node]:
    return [source for source in node.all_input_nodes if value_of(source).is_floating_point()]


def _quantize_again(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> None:
    per_channel = node.target is quantized.dequantize_per_channel.default
    target = (
        quantized.quantize_per_channel.default
        if per_channel
        else quantized.quantize_per_tensor.default
    )
    # Seven-bit weights are stored as eight-bit ones whose values happen to be small. Constants
    # among the activations keep their grid: TFLite has no narrow one with a zero point.
    low, high = (-127, 127) if is_layer_weight(node) else (-128, 127)
    arguments = (*node.args[1:-3], low, high, torch.int8)
    if node.args[-1] is torch.int16:
        arguments = node.args[1:]
    with graph.graph.inserting_before(node):
        constant = add_constant(graph, free_name(graph, name), value)
        integers = graph.graph.call_function(target, (constant, *arguments))
    node.args = (integers, *arguments)
