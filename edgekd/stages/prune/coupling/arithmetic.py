"""Operations that compute: element by element, sums of products, norms, reductions and pools."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree

from edgekd.stages.prune.coupling.atoms import Numbers
from edgekd.stages.prune.coupling.movement import lined_up
from edgekd.stages.prune.coupling.trace import Call, Layout, Trace

NOT_CHANNELS = "they are read as places, not as channels"
CONSTANT = "they are multiplied with a matrix or an input of a fixed size"


def pointwise(trace: Trace, call: Call) -> None:
    """Element by element: what lies in one place belongs together."""
    tensors = [
        each for each in pytree.tree_leaves((call.args, call.kwargs)) if isinstance(each, Tensor)
    ]
    broadcast(trace, tensors, call.out)
    if call.name == "pow" and isinstance(call.args[1], int | float) and call.args[1] == 2:
        trace.mark_square(call.out)
    if call.name == "mul" and len(tensors) == 2 and tensors[0] is tensors[1]:
        trace.mark_square(call.out)


def copied(trace: Trace, call: Call) -> None:
    """copy(to, from): the values, and so the atoms, of `from`."""
    broadcast(trace, [call.args[1]], call.out)


def broadcast(trace: Trace, tensors: Sequence[Tensor], out: Tensor) -> None:
    """Line up the dimensions of all tensors, from the last one, where they are not of size 1."""
    layout: Layout = {}
    for d, size in enumerate(out.shape):
        if size == 1:
            continue
        parts = []
        for tensor in tensors:
            inner = d - (out.dim() - tensor.dim())
            if inner >= 0 and tensor.shape[inner] > 1:
                parts.append((tensor, inner, trace.layout(tensor).get(inner)))
        merged = lined_up(trace, parts)
        if merged is not None:
            layout[d] = merged
    trace.put(out, layout)
    if all(trace.is_uniform(each) for each in tensors):
        trace.mark_uniform(out)


Side = tuple[Tensor, int]
"""A tensor and one of its dimensions."""


def contracted(trace: Trace, first: Side, second: Side) -> None:
    """Line up the dimensions that two tensors are summed up over."""
    parts = [(tensor, dim, trace.layout(tensor).get(dim)) for tensor, dim in (first, second)]
    lined_up(trace, parts)


def matrix_product(trace: Trace, call: Call) -> None:
    """mm, bmm, addmm, baddbmm: (..., m, k) times (..., k, n)."""
    added = call.name in ("addmm", "baddbmm")
    left, right = call.args[1:3] if added else call.args[:2]
    one, other = trace.layout(left), trace.layout(right)
    last = left.dim() - 1
    contracted(trace, (left, last), (right, last - 1))
    layout: Layout = {}
    if last == 2:
        batch = lined_up(trace, [(left, 0, one.get(0)), (right, 0, other.get(0))])
        if batch is not None:
            layout[0] = batch
    if last - 1 in one:
        layout[last - 1] = one[last - 1]
    if last in other:
        layout[last] = other[last]
        trace.made_by(other[last])
    trace.put(call.out, layout)
    if added:
        _bias(trace, call.args[0], call.out)


def _bias(trace: Trace, bias: Any, out: Tensor) -> None:
    """What is added to a product, lined up with it from the last dimension."""
    layout = trace.layout(out)
    for dim, atoms in trace.layout(bias).items():
        made = layout.get(dim + out.dim() - bias.dim())
        if made is None:
            trace.freeze(atoms, CONSTANT)
        else:
            trace.atoms.join(made, atoms)


def convolution(trace: Trace, call: Call) -> None:
    """Any convolution: which input channels each weight reads, and which outputs it makes."""
    x, weight, bias = call.args[:3]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    layout, kernel = trace.layout(x), trace.layout(weight)
    for dim, atoms in layout.items():
        if dim > 1:
            trace.freeze(atoms, NOT_CHANNELS)
    for dim, atoms in kernel.items():
        if dim > 1:
            trace.freeze(atoms, NOT_CHANNELS)
    if groups == 1:
        contracted(trace, (x, 1), (weight, int(not transposed)))
        makes = kernel.get(int(transposed))
    else:
        makes = _grouped(trace, layout.get(1), weight, groups, transposed)
    out: Layout = {0: layout[0]} if 0 in layout else {}
    if makes is not None:
        trace.made_by(makes)
        out[1] = makes
        if isinstance(bias, Tensor):
            trace.atoms.join(makes, trace.layout(bias).get(0, makes))
    trace.put(call.out, out)


def _grouped(
    trace: Trace, channels: Numbers | None, weight: Tensor, groups: int, transposed: bool
) -> Numbers | None:
    """The outputs' atoms of a grouped convolution; where a side has one channel a group, groups
    go, otherwise the same places of every group."""
    kernel = trace.layout(weight)
    rows, columns = kernel.get(0), kernel.get(1)
    if rows is None:
        trace.freeze(channels, CONSTANT)
        return None
    blocks = rows.reshape(groups, -1)
    whole = blocks.shape[1] == 1 or weight.shape[1] == 1
    if channels is None:
        trace.freeze(rows if whole or transposed else columns, CONSTANT)
    elif whole:
        trace.atoms.join_rows(blocks.T)
        trace.atoms.join_rows(channels.reshape(groups, -1).T)
        trace.atoms.join(blocks[:, 0], channels.reshape(groups, -1)[:, 0])
        trace.freeze(columns, CONSTANT)
    elif transposed:
        trace.atoms.join(channels, rows)
    elif columns is not None:
        trace.atoms.join(channels, np.tile(columns, groups))
    if not whole:
        trace.atoms.join_rows(blocks)
    if not transposed:
        return rows
    if whole:
        return np.repeat(blocks[:, 0], weight.shape[1])
    return None if columns is None else np.tile(columns, groups)


def normalized_by_batch(trace: Trace, call: Call) -> None:
    """Batch norms: scale, shift and statistics of each channel."""
    x = call.args[0]
    layout = dict(trace.layout(x))
    for tensor in call.args[1:5]:
        if isinstance(tensor, Tensor):
            _owned(trace, tensor, 0, layout.get(1))
    if call.name != "_native_batch_norm_legit_no_training" and call.args[5]:
        for dim in [each for each in layout if each != 1]:
            trace.freeze(layout.pop(dim), "statistics are taken over them")
    trace.put(call.out, layout)


def _owned(trace: Trace, tensor: Tensor, dim: int, channels: Numbers | None) -> None:
    own = trace.layout(tensor).get(dim)
    if own is not None and channels is not None:
        trace.atoms.join(channels, own)
    else:
        trace.freeze(own, CONSTANT)
        if tensor.shape[dim] > 1 and not trace.is_uniform(tensor):
            trace.freeze(channels, CONSTANT)


def normalized_by_layer(trace: Trace, call: Call) -> None:
    """Layer and root-mean-square norms: over the last dimensions, whatever is left of them."""
    x, shape = call.args[:2]
    layout = trace.layout(x)
    offset = x.dim() - len(shape)
    for tensor in call.args[2:4]:
        if isinstance(tensor, Tensor):
            for dim in range(tensor.dim()):
                _owned(trace, tensor, dim, layout.get(dim + offset))
    trace.put(call.out, layout)


def normalized_by_group(trace: Trace, call: Call) -> None:
    """Group norms: the same places of every group go."""
    x, groups = call.args[0], int(call.args[6])
    layout = dict(trace.layout(x))
    for dim in [each for each in layout if each > 1]:
        trace.freeze(layout.pop(dim), "statistics are taken over them")
    if 1 in layout and groups < len(layout[1]):
        trace.atoms.join_rows(layout[1].reshape(groups, -1))
    for tensor in call.args[1:3]:
        if isinstance(tensor, Tensor):
            _owned(trace, tensor, 0, layout.get(1))
    trace.put(call.out, layout)


def embedded(trace: Trace, call: Call) -> None:
    """Rows of a table by ids: the columns go on as channels, the rows stay."""
    table = trace.layout(call.args[0])
    trace.freeze(table.get(0), REORDERED_BY_IDS)
    out = call.out
    if 1 in table:
        trace.made_by(table[1])
    trace.put(out, {out.dim() - 1: table[1]} if 1 in table else {})


REORDERED_BY_IDS = "ids pick them by number"


def pooled(trace: Trace, call: Call) -> None:
    """Pools and resampling: the last dimensions are places, the ones before go on."""
    source = call.args[0]
    found = re.search(r"(\d)d", call.name)
    places = int(found[1]) if found else source.dim() - 2
    layout: Layout = {}
    for dim, atoms in trace.layout(source).items():
        if dim >= source.dim() - places:
            trace.freeze(atoms, NOT_CHANNELS)
        else:
            layout[dim] = atoms
    trace.put(call.out, layout)


def gated(trace: Trace, call: Call) -> None:
    """GLU: half times sigmoid of the other half, which lose the same places."""
    source = call.args[0]
    dim = call.argument(1, "dim", -1) % source.dim()
    layout = dict(trace.layout(source))
    if dim in layout:
        halves = layout[dim].reshape(2, -1)
        trace.atoms.join_rows(halves)
        layout[dim] = halves[0]
    trace.put(call.out, layout)


def reduced(trace: Trace, call: Call) -> None:
    """Sums, means, norms, maxima: over channels only where a smaller set is as good."""
    source = call.args[0]
    position = 2 if call.name == "linalg_vector_norm" else 1
    given = call.argument(position, "dim")
    dims = [given] if isinstance(given, int) else list(given or range(source.dim()))
    dims = [dim % source.dim() for dim in dims]
    plain = call.name in ("sum", "linalg_vector_norm") or (
        call.name == "mean" and trace.is_square(source)
    )
    kept = call.out.dim() == source.dim()
    layout: Layout = {}
    for dim, atoms in trace.layout(source).items():
        if dim in dims:
            if not plain:
                trace.freeze(atoms, f"their {call.name.removeprefix('a')} is taken")
        else:
            layout[dim if kept else dim - sum(each < dim for each in dims)] = atoms
    trace.put(call.out, layout)
    if call.name == "linalg_vector_norm":
        trace.mark_square(call.out)


def ordered(trace: Trace, call: Call) -> None:
    """Softmax, cumulative sums, sorting: along its dimension every place matters."""
    source = call.args[0]
    position = 2 if call.name in ("topk", "kthvalue") else 1
    dim = call.argument(position, "dim", -1) % source.dim()
    layout = dict(trace.layout(source))
    trace.freeze(layout.pop(dim, None), f"{call.name.strip('_')} runs over them")
    if call.name.endswith("_softmax") and dim == source.dim() - 1:
        trace.attending += [atoms for d, atoms in layout.items() if d < source.dim() - 2]
    for result in call.result if isinstance(call.result, tuple | list) else [call.result]:
        trace.put(result, layout)
