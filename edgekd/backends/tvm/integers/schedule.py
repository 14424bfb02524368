"""The schedule of an integer layer: sums of a register tile by dot products, written as 8 bits.

It is that of `edgekd.backends.tvm.tiled_sum` with a dot product innermost. The result is computed
from each tile while its sums are still in registers.
"""

import math
from typing import Any

from edgekd.backends.tvm.leftovers import is_reduction
from edgekd.backends.tvm.tile import Tile
from edgekd.backends.tvm.tiled_sum import SUM, extent

INTEGER = "edgekd_integer"
"""The attribute of the kernels that this package writes."""

TURNED = "edgekd_turned"
"""The block that writes planes (n, c, h, w) as an image with its channels last."""

BYTES = 64
"""Most neighbouring bytes that a copy moves at once."""

SUMS_FOR_A_THREAD = 1 << 21
"""Multiply-adds below which waking a second thread costs more than it saves."""

NUMBERS_FOR_A_THREAD = 1 << 17


def schedule_integer(function: Any, lanes: int) -> Any:
    """A scheduled kernel of any kind that this package writes."""
    from tvm.s_tir import Schedule

    schedule = Schedule(function)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    names = [schedule.get(block).name_hint for block in blocks]
    if SUM in names:
        _weighted(schedule, blocks, names.index(SUM))
    else:
        for block in blocks:
            if schedule.get(block).name_hint == TURNED:
                _interleaved(schedule, block, lanes)
            elif is_reduction(schedule, block):
                _reduction(schedule, block, lanes)
            else:
                _elementwise(schedule, block, lanes)
    return schedule.mod["main"]


def _weighted(schedule: Any, blocks: list[Any], at: int) -> None:
    notes = schedule.get(blocks[at]).annotations
    tile = Tile(*(int(size) for size in notes["edgekd_tile"]))
    dot = str(notes["edgekd_dot"])
    for block in blocks[:at]:
        _rows(schedule, block, BYTES)
    for key in ("edgekd_tile", "edgekd_dot"):
        schedule.unannotate(blocks[at], key)
    _tiled(schedule, blocks[at], blocks[-1], tile, dot)


def _tiled(schedule: Any, sums: Any, last: Any, tile: Tile, dot: str) -> None:
    loops = schedule.get_loops(sums)
    extents = [extent(schedule, loop) for loop in loops]
    n, y, x, o, i, *reduction = loops
    yo, yi = schedule.split(y, [None, tile.rows])
    xo, xi = schedule.split(x, [None, tile.columns])
    cu, cv = schedule.split(i, [None, tile.lanes])
    deepest = [reduction.pop()] if dot else []
    weights_first = math.prod(extents[3:]) > math.prod(extents[1:3]) * extents[-2]
    outer = [n, o, yo] if weights_first else [n, yo, o]
    schedule.reorder(*outer, xo, *reduction, yi, xi, cu, cv, *deepest)
    schedule.reverse_compute_at(last, xo)
    fused = schedule.fuse(*outer)
    if math.prod(extents) >= SUMS_FOR_A_THREAD:
        schedule.parallel(fused)
    schedule.set_scope(sums, 0, "local")
    for loop in (yi, xi, cu, *(reduction if len(reduction) == 2 else ())):
        schedule.unroll(loop)
    if not dot:
        schedule.vectorize(cv)
    start = schedule.decompose_reduction(sums, reduction[0])
    if dot:
        schedule.tensorize(cv, dot)
    _inner(schedule, start, tile.lanes)
    _inner(schedule, last, tile.lanes)


def _inner(schedule: Any, block: Any, lanes: int) -> None:
    """Vectorize the channels of a block inside the tile and unroll the rest of its loops."""
    *spatial, channel = schedule.get_loops(block)[2:]
    width = vector_of(extent(schedule, channel), lanes)
    if width > 1:
        channel, vector = schedule.split(channel, [None, width])
        schedule.vectorize(vector)
    for loop in (*spatial, channel):
        schedule.unroll(loop)


def _elementwise(schedule: Any, block: Any, lanes: int) -> None:
    """All numbers in one loop where vectors stay within the last axis, or that axis is narrow."""
    loops = schedule.get_loops(block)
    if not loops:
        return
    size = math.prod(extent(schedule, loop) for loop in loops)
    fused = schedule.fuse(*loops)
    width = vector_of(size, lanes)
    if width > 1:
        fused, vector = schedule.split(fused, [None, width])
        schedule.vectorize(vector)
    if size >= NUMBERS_FOR_A_THREAD:
        schedule.parallel(fused)


def _interleaved(schedule: Any, block: Any, lanes: int) -> None:
    """Vectors along the width, which is how planes lie in memory."""
    n, y, x, channel = schedule.get_loops(block)
    size = math.prod(extent(schedule, loop) for loop in (n, y, x, channel))
    outer, vector = schedule.split(x, [None, vector_of(extent(schedule, x), lanes)])
    schedule.reorder(n, y, outer, channel, vector)
    schedule.vectorize(vector)
    schedule.unroll(channel)
    if size >= NUMBERS_FOR_A_THREAD:
        schedule.parallel(schedule.fuse(n, y))


def _rows(schedule: Any, block: Any, lanes: int) -> None:
    """A copy whose condition depends on the row: vectors within the last axis."""
    *outer, last = schedule.get_loops(block)
    size = math.prod(extent(schedule, loop) for loop in (*outer, last))
    width = vector_of(extent(schedule, last), lanes)
    if width > 1:
        last, vector = schedule.split(last, [None, width])
        schedule.vectorize(vector)
    if size >= NUMBERS_FOR_A_THREAD:
        schedule.parallel(schedule.fuse(*outer[:-1]))


def _reduction(schedule: Any, block: Any, lanes: int) -> None:
    """Sums of one vector of the innermost output axis at a time."""
    loops = schedule.get_loops(block)
    kinds = [int(var.iter_type) for var in schedule.get(block).iter_vars]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 2]
    size = math.prod(extent(schedule, loop) for loop in loops)
    width = vector_of(extent(schedule, spatial[-1]), lanes)
    outer, vector = schedule.split(spatial[-1], [None, width])
    schedule.reorder(*spatial[:-1], outer, *reduced, vector)
    fused = schedule.fuse(*spatial[:-1], outer)
    if width > 1:
        schedule.vectorize(vector)
    if size >= NUMBERS_FOR_A_THREAD:
        schedule.parallel(fused)
    start = schedule.decompose_reduction(block, reduced[0])
    if width > 1:
        schedule.vectorize(schedule.get_loops(start)[-1])


def vector_of(size: int, lanes: int) -> int:
    """The widest power of two of at most `lanes` that divides a size."""
    width = lanes
    while size % width:
        width //= 2
    return width
