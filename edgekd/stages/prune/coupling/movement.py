"""Operations that move values: the same operation, on the atoms, says where each of them goes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.stages.prune.coupling.atoms import FIXED, Numbers
from edgekd.stages.prune.coupling.trace import Call, Layout, Trace

RESHAPES = ("view", "_unsafe_view", "_reshape_alias", "reshape")

FIXED_SIZE = "their reshape or slice has sizes of its own"
REORDERED = "they are picked by number"


def moved(trace: Trace, call: Call) -> None:
    """View, reshape, permute, expand, flip, pixel shuffles: by moving the atoms alike."""
    source = call.args[0]
    results = call.result if isinstance(call.result, tuple | list) else [call.result]
    layouts: list[Layout] = [{} for _ in results]
    for dim, atoms in trace.layout(source).items():
        labels = _spread(len(atoms), dim, source.shape)
        if call.name in RESHAPES:
            found = labels.reshape(call.out.shape)
        else:
            found = call.func(labels, *call.args[1:], **call.kwargs)
        parts = found if isinstance(found, tuple | list) else [found]
        for layout, part in zip(layouts, parts, strict=True):
            gathered = _gathered(trace, atoms, part.numpy(), call.name)
            if gathered is not None:
                _add(trace, layout, *gathered)
    for result, layout in zip(results, layouts, strict=True):
        trace.put(result, layout)
        if trace.is_uniform(source):
            trace.mark_uniform(result)


def _spread(size: int, dim: int, shape: Sequence[int]) -> Tensor:
    """The index along one dimension as values of a tensor of the whole shape."""
    view = [1] * len(shape)
    view[dim] = size
    return torch.arange(size).view(view).expand(*shape)


def _gathered(
    trace: Trace, atoms: Numbers, places: Numbers, name: str
) -> tuple[int, Numbers] | None:
    """The one dimension along which the indices vary, and its atoms.

    Where several do, one is chosen to shrink: what lies in one slice across it is joined.
    """
    roots = trace.atoms.find(atoms)[places]
    dims = [d for d, size in enumerate(places.shape) if size > 1 and _varies(roots, d)]
    if not dims:
        return None
    axis = dims[0]
    if len(dims) > 1:
        if name == "pixel_shuffle":
            axis = places.ndim - 3
        else:
            chosen = trace.choose(np.unique(roots), len(dims), "reshape", places.shape)
            if chosen >= len(dims):
                trace.freeze(np.unique(roots), FIXED_SIZE)
                return None
            axis = dims[chosen]
        rows = np.moveaxis(roots, axis, -1).reshape(-1, places.shape[axis])
        trace.atoms.join_rows(np.unique(rows, axis=0))
    index: list[Any] = [0] * places.ndim
    index[axis] = slice(None)
    return axis, atoms[places[tuple(index)]]


def _varies(values: Numbers, dim: int) -> bool:
    return bool((values != np.take(values, [0], axis=dim)).any())


def _add(trace: Trace, layout: Layout, dim: int, atoms: Numbers) -> None:
    if dim in layout:
        trace.freeze(layout.pop(dim), "two kinds of channels are mixed in one dimension")
        trace.freeze(atoms, "two kinds of channels are mixed in one dimension")
    else:
        layout[dim] = atoms


def transposed_in_place(trace: Trace, call: Call) -> None:
    """transpose_, which nn.GRU and nn.LSTM use: the tensor has its new shape already."""
    source = call.args[0]
    one, other = (dim % source.dim() for dim in call.args[1:3])
    layout = trace.layout(source)
    trace.put(source, {{one: other, other: one}.get(dim, dim): layout[dim] for dim in layout})


def strided_in_place(trace: Trace, call: Call) -> None:
    """as_strided_, by which average pooling gives its output a memory format: sizes stay."""
    source, sizes = call.args[0], call.args[1]
    for dim, atoms in trace.layout(source).items():
        if dim >= len(sizes) or sizes[dim] != len(atoms):
            trace.freeze(atoms, FIXED_SIZE)


def passed(trace: Trace, call: Call) -> None:
    """Copies, casts, dropout: the result is as the first argument."""
    source = call.args[0]
    trace.put(call.out, trace.layout(source))
    if trace.is_uniform(source):
        trace.mark_uniform(call.out)


def shaped_alike(trace: Trace, call: Call) -> None:
    """zeros_like and its kind: the size of the first argument, and one value everywhere."""
    passed(trace, call)
    trace.mark_uniform(call.out)


def filled(trace: Trace, call: Call) -> None:
    """A new tensor with one value everywhere."""
    trace.mark_uniform(call.out)


def sliced(trace: Trace, call: Call) -> None:
    """x[:, a:b:s]: whole, every s-th in step, one of equal parts in step, or a fixed beginning."""
    source = call.args[0]
    dim = call.argument(1, "dim", 0) % source.dim()
    start, stop = call.argument(2, "start", 0) or 0, call.argument(3, "end")
    size = source.shape[dim]
    first, last, step = slice(start, stop).indices(size)[:2] + (call.argument(4, "step", 1),)  # noqa: RUF005
    atoms = trace.layout(source).get(dim)
    if atoms is not None and (step > 1 or (first, last) != (0, size)):
        _in_parts(trace, atoms, first, last, step)
    moved(trace, call)


def _in_parts(trace: Trace, atoms: Numbers, first: int, last: int, step: int) -> None:
    size, width = len(atoms), last - first
    if width <= 0:
        return
    if step > 1:
        if (
            first < step
            and last == size
            and size % step == 0
            and not trace.choose(atoms, 1, "steps", [size, step])
        ):
            trace.atoms.join_rows(atoms.reshape(-1, step).T)
        else:
            trace.freeze(atoms, FIXED_SIZE)
        return
    equal = size % width == 0 and first % width == 0
    choice = trace.choose(atoms, 2, "slice", [size, width])
    if choice == 0 and equal:
        trace.atoms.join_rows(atoms.reshape(-1, width))
    elif choice <= 1:
        trace.freeze(atoms[: last if last < size else first], FIXED_SIZE)
    else:
        trace.freeze(atoms, FIXED_SIZE)


def split(trace: Trace, call: Call) -> None:
    """Equal parts lose the same places; parts of unequal size stay as they are."""
    source = call.args[0]
    dim = call.argument(2, "dim", 0) % source.dim()
    atoms = trace.layout(source).get(dim)
    if atoms is not None and len(call.result) > 1:
        sizes = {part.shape[dim] for part in call.result}
        if len(sizes) == 1 and not trace.choose(atoms, 1, "split", [len(atoms), len(sizes)]):
            trace.atoms.join_rows(atoms.reshape(len(call.result), -1))
        else:
            trace.freeze(atoms, FIXED_SIZE)
    moved(trace, call)


def selected(trace: Trace, call: Call) -> None:
    """Single channels picked by number stay, as do their neighbours, whose numbers would change."""
    source = call.args[0]
    dim = 0 if call.name == "unbind" else None
    dim = call.argument(1, "dim", dim) % source.dim()
    trace.freeze(trace.layout(source).get(dim), REORDERED)
    moved(trace, call)


def rolled(trace: Trace, call: Call) -> None:
    """Rolling along channels moves them by number."""
    source = call.args[0]
    dims = [dim % source.dim() for dim in call.argument(2, "dims", ())]
    for dim, atoms in trace.layout(source).items():
        if dim in dims or not dims:
            trace.freeze(atoms, REORDERED)
    moved(trace, call)


def indexed(trace: Trace, call: Call) -> None:
    """x[:, index]: the dimension that is indexed keeps its numbers; the others go on."""
    source, indices = call.args[0], call.args[1]
    for dim, index in enumerate(indices):
        if index is not None:
            trace.freeze(trace.layout(source).get(dim), REORDERED)
    moved(trace, call)


def index_selected(trace: Trace, call: Call) -> None:
    """index_select: the same, along one dimension."""
    source = call.args[0]
    trace.freeze(trace.layout(source).get(call.args[1] % source.dim()), REORDERED)
    moved(trace, call)


def channels_shuffled(trace: Trace, call: Call) -> None:
    """nn.ChannelShuffle: the same places of every group go."""
    source, groups = call.args[0], call.args[1]
    atoms = trace.layout(source).get(1)
    if atoms is not None:
        trace.atoms.join_rows(atoms.reshape(groups, -1))
    moved(trace, call)


def padded(trace: Trace, call: Call) -> None:
    """Constants around: along channels they are positions that stay."""
    source, pads = call.args[0], call.args[1]
    layout = dict(trace.layout(source))
    for number in range(len(pads) // 2):
        dim, before, after = source.dim() - 1 - number, pads[2 * number], pads[2 * number + 1]
        if dim not in layout or not (before or after):
            continue
        if min(before, after) < 0:
            trace.freeze(layout.pop(dim), FIXED_SIZE)
        else:
            layout[dim] = np.pad(layout[dim], (before, after), constant_values=FIXED)
    trace.put(call.out, layout)


def concatenated(trace: Trace, call: Call) -> None:
    """cat and stack: along the new order the atoms follow each other, elsewhere they line up."""
    tensors = [each for each in call.args[0] if each.dim() > 0 and each.numel() > 0]
    out = call.out
    dim = call.argument(1, "dim", 0) % out.dim()
    stacked = call.name == "stack"
    layout: Layout = {}
    for d in range(out.dim()):
        if d == dim:
            if not stacked:
                parts = [trace.layout(each).get(d) for each in tensors]
                if any(part is not None for part in parts):
                    layout[d] = np.concatenate(
                        [
                            np.full(each.shape[d], FIXED) if part is None else part
                            for each, part in zip(tensors, parts, strict=True)
                        ]
                    )
            continue
        inner = d - 1 if stacked and d > dim else d
        merged = lined_up(trace, [(each, inner, trace.layout(each).get(inner)) for each in tensors])
        if merged is not None:
            layout[d] = merged
    trace.put(out, layout)


def lined_up(trace: Trace, parts: Sequence[tuple[Any, int, Numbers | None]]) -> Numbers | None:
    """The joined atoms of one dimension that several tensors share; None where it is fixed."""
    given = [atoms for _, _, atoms in parts if atoms is not None]
    if not given:
        return None
    for other in given[1:]:
        trace.atoms.join(given[0], other)
    if any(atoms is None and not trace.is_uniform(each, dim) for each, dim, atoms in parts):
        trace.freeze(given[0], "they are combined with a constant or an input of a fixed size")
        return None
    return given[0]


def slice_written(trace: Trace, call: Call) -> None:
    """x[:, a:b] = y: the result has y's atoms in that place."""
    base, source = call.args[0], call.args[1]
    dim = call.argument(2, "dim", 0) % base.dim()
    start, stop, step = call.argument(3, "start"), call.argument(4, "end"), call.argument(5, "step")
    layout: Layout = {}
    for d in range(base.dim()):
        old, new = trace.layout(base).get(d), trace.layout(source).get(d)
        if d != dim:
            merged = lined_up(trace, [(base, d, old), (source, d, new)])
            if merged is not None:
                layout[d] = merged
        elif old is not None or new is not None:
            atoms = np.full(base.shape[d], FIXED) if old is None else old.copy()
            where = slice(start, stop, step)
            if source.shape[d] == base.shape[d] and new is None:
                trace.freeze(old, "they are combined with a constant or an input of a fixed size")
            atoms[where] = FIXED if new is None else new
            layout[d] = atoms
    trace.put(call.out, layout)
