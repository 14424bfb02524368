"""Operators that only move elements: strides say from where to where, and one kernel moves them."""

import math
from collections.abc import Sequence

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.step import Step, about
from edgekd.firmware.strides import contiguous, merged

DIMENSIONS = 8


def move(
    node: Node,
    source: Array,
    output: Array,
    shape: Sequence[int],
    from_stride: Sequence[int],
    to_stride: Sequence[int],
    *,
    start: int = 0,
    to: int = 0,
    fill: int | None = None,
) -> Step:
    """The call that moves `shape` elements; refused if it would leave either tensor."""
    if source.grid != output.grid:
        raise node.refuse("input and output have different scales")
    for first, strides, array in ((start, from_stride, source), (to, to_stride, output)):
        reach = [(size - 1) * step for size, step in zip(shape, strides, strict=True)]
        low = first + sum(one for one in reach if one < 0)
        high = first + sum(one for one in reach if one > 0)
        if low < 0 or high >= array.elements:
            raise node.refuse(f"it would read or write outside {array.shape}")
    loops, (reads, writes) = merged(shape, (from_stride, to_stride), DIMENSIONS)
    fields = {
        "shape": loops,
        "from_stride": reads,
        "to_stride": writes,
        "from": start,
        "to": to,
        "fill": int(fill is not None),
        "value": fill or 0,
        "output_size": output.elements,
    }
    return Step("copy", fields, (source,), output, about(node, source))


def _transpose(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    order = [int(axis) for axis in node.constant(1, "int32").reshape(-1)]
    rank = len(source.shape)
    if sorted(order) != list(range(rank)) or output.shape != tuple(source.shape[i] for i in order):
        raise node.refuse(f"{source.shape} transposed by {order} is not {output.shape}")
    steps = contiguous(source.shape)
    strides = [steps[axis] for axis in order]
    return [move(node, source, output, output.shape, strides, contiguous(output.shape))]


def _pad(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    around = pads(node, source)
    fill = output.zero_point
    if node.kind == "PADV2":
        value = node.computed(2)
        if value.values is None or value.elements != 1 or value.grid != output.grid:
            raise node.refuse("its padding value is not one constant on the output's grid")
        fill = int(value.values.reshape(-1)[0])
    wanted = tuple(s + b + e for s, (b, e) in zip(source.shape, around, strict=True))
    if wanted != output.shape:
        raise node.refuse(f"{source.shape} padded by {around} is not {output.shape}")
    strides = contiguous(output.shape)
    to = sum(begin * step for (begin, _), step in zip(around, strides, strict=True))
    reads = contiguous(source.shape)
    return [move(node, source, output, source.shape, reads, strides, to=to, fill=fill)]


def pads(node: Node, source: Array) -> list[tuple[int, int]]:
    """How much is added before and after each dimension."""
    table = node.constant(1, "int32")
    if table.shape != (len(source.shape), 2) or (table < 0).any() or (table > 1 << 20).any():
        raise node.refuse(f"a table of pads of shape {table.shape}, or one that is negative")
    return [(int(begin), int(end)) for begin, end in table]


def _concatenation(node: Node) -> list[Step]:
    output = node.output
    rank = len(output.shape)
    axis = node.option("Axis")
    if not -rank <= axis < rank or node.option("FusedActivationFunction") != 0:
        raise node.refuse(f"axis {axis} of {rank} dimensions, or a fused activation")
    axis %= rank
    strides, to, steps = contiguous(output.shape), 0, []
    for index in range(len(node.inputs)):
        source = node.computed(index)
        rest = [size for place, size in enumerate(source.shape) if place != axis]
        if len(source.shape) != rank or rest != [
            size for place, size in enumerate(output.shape) if place != axis
        ]:
            raise node.refuse(f"an input of shape {source.shape} for {output.shape}")
        reads = contiguous(source.shape)
        steps.append(
            move(node, source, output, source.shape, reads, strides, to=to * strides[axis])
        )
        to += source.shape[axis]
    if to != output.shape[axis]:
        raise node.refuse(f"its inputs give {to} along dimension {axis}, not {output.shape[axis]}")
    return steps


def _strided_slice(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    rank = len(source.shape)
    begins, ends, strides = (node.constant(n, "int32").reshape(-1) for n in (1, 2, 3))
    if not len(begins) == len(ends) == len(strides) == rank:
        raise node.refuse(f"it does not have {rank} begins, ends and strides")
    if node.option("EllipsisMask") or node.option("NewAxisMask"):
        raise node.refuse("an ellipsis or a new axis")
    shrink = node.options.get("ShrinkAxisMask", 0)
    picks = []
    for axis, size in enumerate(source.shape):
        stride, bit = int(strides[axis]), 1 << axis
        if stride == 0:
            raise node.refuse("a stride of 0")
        begin = None if node.option("BeginMask") & bit else int(begins[axis])
        end = None if node.option("EndMask") & bit else int(ends[axis])
        if shrink & bit:
            first = int(begins[axis])
            if not -size <= first < size:
                raise node.refuse(f"index {first} of {size}")
            picks.append(range(first % size, first % size + 1))
        else:
            picks.append(range(size)[slice(begin, end, stride)])
    return _picked(node, source, output, picks, shrink)


def _picked(
    node: Node, source: Array, output: Array, picks: list[range], shrink: int = 0
) -> list[Step]:
    shape = [len(pick) for pick in picks]
    kept = tuple(size for axis, size in enumerate(shape) if not shrink & (1 << axis))
    if kept != output.shape or not math.prod(shape):
        raise node.refuse(f"{source.shape} gives {kept}, not {output.shape}")
    steps = contiguous(source.shape)
    start = sum(pick.start * step for pick, step in zip(picks, steps, strict=True))
    reads = [pick.step * step for pick, step in zip(picks, steps, strict=True)]
    return [move(node, source, output, shape, reads, contiguous(shape), start=start)]


def _slice(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    begins, sizes = (node.constant(n, "int32").reshape(-1) for n in (1, 2))
    if not len(begins) == len(sizes) == len(source.shape):
        raise node.refuse(f"it does not have {len(source.shape)} begins and sizes")
    picks = []
    for size, begin, count in zip(source.shape, begins.tolist(), sizes.tolist(), strict=True):
        end = size if count == -1 else begin + count
        if not 0 <= begin < end <= size:
            raise node.refuse(f"{begin} to {end} is outside {size}")
        picks.append(range(begin, end))
    return _picked(node, source, output, picks)


def _resize(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    if len(source.shape) != 4 or len(output.shape) != 4 or node.option("AlignCorners"):
        raise node.refuse("not four dimensions, or aligned corners")
    batch, height, width, channels = source.shape
    up, right = output.shape[1] // height, output.shape[2] // width
    if output.shape != (batch, height * up, width * right, channels) or not (up and right):
        raise node.refuse(f"{source.shape} -> {output.shape} does not scale by whole factors")
    row = width * channels
    shape = (batch, height, up, width, right, channels)
    reads = (height * row, row, 0, channels, 0, 1)
    return [move(node, source, output, shape, reads, contiguous(shape))]


OPERATORS = {
    "CONCATENATION": _concatenation,
    "PAD": _pad,
    "PADV2": _pad,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
}
