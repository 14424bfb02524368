"""The arithmetic of steps without weights, as tensor expressions.

Each works on `Held` tensors: graph indices are turned into those of memory, where an image may have
its channels last.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.backends.tvm.integers import steps
from edgekd.backends.tvm.integers.grid import Grid
from edgekd.backends.tvm.integers.rounding import requantized, rounded
from edgekd.backends.tvm.integers.schedule import TURNED

Index = Sequence[Any]

FEW_CHANNELS = 4
"""An image of at most this many planes is interleaved a vector of each plane at a time."""


@dataclass(frozen=True)
class Held:
    """A tensor's shape in the graph, and whether memory has its second axis last."""

    shape: tuple[int, ...]
    last: bool

    @property
    def memory(self) -> tuple[int, ...]:
        """The shape in memory."""
        return tuple(self.to_memory(self.shape))

    def to_memory(self, index: Index) -> list[Any]:
        """A graph's index as memory's."""
        index = list(index)
        return [index[0], *index[2:], index[1]] if self.last else index

    def from_memory(self, index: Index) -> list[Any]:
        """Memory's index as the graph's."""
        index = list(index)
        return [index[0], index[-1], *index[1:-1]] if self.last else index


def computed(held: Held, value: Callable[..., Any], name: str = "edgekd_result") -> Any:
    """The tensor whose number at a graph's index is `value(*index)`."""
    from tvm import te

    return te.compute(held.memory, lambda *at: value(*held.from_memory(at)), name=name)


def broadcast(held: Held, tensor: Any) -> Callable[..., Any]:
    """A reader of a tensor at an index of a result of at least its rank."""

    def read(*index: Any) -> Any:
        own = index[len(index) - len(held.shape) :]
        picked = [0 if size == 1 else at for at, size in zip(own, held.shape, strict=True)]
        return tensor(*held.to_memory(picked))

    return read


def quantized(result: Held, grid: Grid, source: Any) -> Any:
    """A float tensor in the graph's order, on a grid."""
    from tvm import tirx

    inverse = tirx.const(float(np.float32(1.0 / grid.scale)), "float32")
    turned = result.last and len(result.shape) == 4 and 1 < result.shape[1] <= FEW_CHANNELS
    name = TURNED if turned else "edgekd_result"
    return computed(result, lambda *at: rounded(source(*at) * inverse, grid), name)


def dequantized(source: Held, grid: Grid, tensor: Any) -> Any:
    """The real values in the graph's order."""
    from tvm import tirx

    scale = tirx.const(float(np.float32(grid.scale)), "float32")
    read = broadcast(source, tensor)
    plain = Held(source.shape, last=False)
    return computed(plain, lambda *at: centred(read(*at), grid).astype("float32") * scale)


def centred(value: Any, grid: Grid) -> Any:
    """An integer less its zero point, as int32."""
    from tvm import tirx

    return value.astype("int32") - tirx.const(grid.zero_point, "int32")


def looked_up(result: Held, source: Held, dtype: str, tensor: Any, entries: Any) -> Any:
    """The table's entry for each integer."""
    least = int(np.iinfo(dtype).min)
    read = broadcast(source, tensor)
    return computed(result, lambda *at: entries[read(*at).astype("int32") - least])


def arithmetic(
    step: steps.Arithmetic, result: Held, left: Callable[..., Any], right: Callable[..., Any]
) -> Any:
    """Sum, difference or product of two tensors."""
    return computed(result, lambda *at: combined(step, left(*at), right(*at)))


def combined(step: steps.Arithmetic, left: Any, right: Any) -> Any:
    """Sum, difference or product of two integers, in float32 between their grids."""
    from tvm import tirx

    grids = (step.left.grid, step.right.grid)
    one, other = centred(left, grids[0]), centred(right, grids[1])
    if step.kind == "mul":
        scale = grids[0].scale * grids[1].scale / step.result.grid.scale
        factor = tirx.const(float(np.float32(scale)), "float32")
        return requantized(one * other, factor, step.result.grid)
    ratio = [float(np.float32(grid.scale / step.result.grid.scale)) for grid in grids]
    one = one.astype("float32") * tirx.const(ratio[0], "float32")
    other = other.astype("float32") * tirx.const(ratio[1], "float32")
    return rounded(one + other if step.kind == "add" else one - other, step.result.grid)


def joined(step: steps.Joined, result: Held, readers: Sequence[Callable[..., Any]]) -> Any:
    """The parts along the step's axis."""
    from tvm import tirx

    sizes = [source.shape[step.axis] for source in step.sources]

    def value(*at: Any) -> Any:
        begin = sum(sizes[:-1])
        picked = _from_part(readers[-1], at, step.axis, begin)
        for number in range(len(sizes) - 2, -1, -1):
            end, begin = begin, begin - sizes[number]
            part = _from_part(readers[number], at, step.axis, begin)
            picked = tirx.if_then_else(at[step.axis] < end, part, picked)
        return picked

    return computed(result, value)


def _from_part(read: Callable[..., Any], at: Index, axis: int, begin: int) -> Any:
    index = list(at)
    index[axis] = index[axis] - begin
    return read(*index)


def reduced(step: steps.Reduced, result: Held, read: Callable[..., Any]) -> Any:
    """The mean or an extreme over axes."""
    from tvm import te, tirx

    shape, grid = step.source.shape, step.source.grid
    kept = len(step.result.shape) == len(shape)
    free = [axis for axis in range(len(shape)) if axis not in step.axes]

    def total(*at: Any) -> Any:
        axes = [te.reduce_axis((0, shape[axis])) for axis in step.axes]
        index: list[Any] = [None] * len(shape)
        for axis, variable in zip(step.axes, axes, strict=True):
            index[axis] = variable
        for axis, variable in zip(free, at, strict=True):
            index[axis] = variable
        value = read(*index)
        if step.kind == "mean":
            return te.sum(value.astype("int32"), axis=axes)
        return (te.max if step.kind == "max" else te.min)(value, axis=axes)

    totals = te.compute(tuple(shape[axis] for axis in free), total, name="edgekd_total")

    def value(*at: Any) -> Any:
        index = [at[axis] for axis in free] if kept else list(at)
        if step.kind != "mean":
            return totals(*index)
        count = math.prod(shape[axis] for axis in step.axes)
        factor = np.float32(grid.scale / step.result.grid.scale / count)
        whole = totals(*index) - tirx.const(grid.zero_point * count, "int32")
        return requantized(whole, tirx.const(float(factor), "float32"), step.result.grid)

    return computed(result, value)


def pooled(step: steps.Pooled, result: Held, tensor: Any) -> Any:
    """Windows over an image with its channels last."""
    from tvm import te, tirx

    n, c, h, w = step.source.shape
    (kh, kw), (sy, sx) = step.window, step.stride
    (top, left), (dy, dx) = step.padding, step.dilation
    grid = step.source.grid
    fill = grid.zero_point if step.kind == "mean" else int(np.iinfo(grid.dtype).min)

    def inside(b: Any, y: Any, x: Any, k: Any) -> Any:
        within = tirx.all(y >= top, y < top + h, x >= left, x < left + w)
        return tirx.if_then_else(
            within, tensor[b, y - top, x - left, k], tirx.const(fill, grid.dtype)
        )

    source = tensor
    if top or left:
        source = te.compute((n, h + 2 * top, w + 2 * left, c), inside, name="edgekd_pad")
    ry, rx = te.reduce_axis((0, kh), "ry"), te.reduce_axis((0, kw), "rx")
    height, width = step.result.shape[2:]

    def total(b: Any, y: Any, x: Any, k: Any) -> Any:
        value = source[b, y * sy + ry * dy, x * sx + rx * dx, k]
        if step.kind == "max":
            return te.max(value, axis=[ry, rx])
        return te.sum(value.astype("int32"), axis=[ry, rx])

    totals = te.compute((n, height, width, c), total, name="edgekd_total")
    if step.kind == "max":
        return totals

    def inner(at: Any, stride: int, around: int, size: int, window: int) -> Any:
        begin = at * stride - around
        return tirx.min(begin + window, size) - tirx.max(begin, 0)

    def value(b: Any, k: Any, y: Any, x: Any) -> Any:
        whole = totals[b, y, x, k] - tirx.const(grid.zero_point * kh * kw, "int32")
        if step.counts_padding or not (top or left):
            factor = np.float32(grid.scale / step.result.grid.scale / (kh * kw))
            return requantized(whole, tirx.const(float(factor), "float32"), step.result.grid)
        count = inner(y, sy, top, h, kh) * inner(x, sx, left, w, kw)
        ratio = tirx.const(float(np.float32(grid.scale / step.result.grid.scale)), "float32")
        return rounded(whole.astype("float32") * ratio / count.astype("float32"), step.result.grid)

    return computed(result, value)


def reshaped(result: Held, source: Held, tensor: Any) -> Any:
    """The numbers of a tensor with its channels last, in the graph's order and another shape."""
    read = broadcast(source, tensor)

    def value(*at: Any) -> Any:
        flat = at[0] if at else 0
        for size, index in zip(result.shape[1:], at[1:], strict=True):
            flat = flat * size + index
        index = []
        for size in reversed(source.shape):
            index.append(flat % size)
            flat = flat // size
        return read(*reversed(index))

    return computed(result, value)


def permuted(step: steps.Permuted, result: Held, read: Callable[..., Any]) -> Any:
    """The axes in another order."""

    def value(*at: Any) -> Any:
        index: list[Any] = [None] * len(at)
        for place, axis in enumerate(step.order):
            index[axis] = at[place]
        return read(*index)

    return computed(result, value)


def sliced(step: steps.Sliced, result: Held, read: Callable[..., Any]) -> Any:
    """Part of a tensor."""

    def value(*at: Any) -> Any:
        places = iter(at)
        pairs = enumerate(zip(step.begins, step.steps, strict=True))
        return read(
            *[
                begin if axis == step.selected else begin + next(places) * each
                for axis, (begin, each) in pairs
            ]
        )

    return computed(result, value)


def padded(step: steps.Padded, result: Held, read: Callable[..., Any]) -> Any:
    """Zeros around a tensor."""
    from tvm import tirx

    def value(*at: Any) -> Any:
        inside = []
        for place, (before, after), size in zip(at, step.widths, step.source.shape, strict=True):
            if before or after:
                inside += [place >= before, place < before + size]
        index = [place - before for place, (before, _) in zip(at, step.widths, strict=True)]
        fill = tirx.const(step.fill, step.result.grid.dtype)
        return tirx.if_then_else(tirx.all(*inside), read(*index), fill) if inside else read(*index)

    return computed(result, value)


def multiplied(
    step: steps.Multiplied, result: Held, left: Callable[..., Any], right: Callable[..., Any]
) -> Any:
    """Products of matrices on the last two axes."""
    from tvm import te, tirx

    k = te.reduce_axis((0, step.left.shape[-1]), "k")

    def total(*at: Any) -> Any:
        *batch, row, column = at
        one = centred(left(*batch, row, k), step.left.grid)
        return te.sum(one * centred(right(*batch, k, column), step.right.grid), axis=k)

    totals = te.compute(step.result.shape, total, name="edgekd_total")
    scale = step.left.grid.scale * step.right.grid.scale / step.result.grid.scale
    factor = tirx.const(float(np.float32(scale)), "float32")
    return computed(result, lambda *at: requantized(totals(*at), factor, step.result.grid))
