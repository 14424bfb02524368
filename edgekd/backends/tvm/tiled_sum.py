"""The schedule of every weighted layer: the sums of a register tile, everything else fused with it.

A layer is written as three blocks: an optional `edgekd_pad`, the sums `edgekd_sum` over
(n, y, x, o, i) with the channels blocked in o and i, and `edgekd_crop` back to (n, y, x, c).
The reduction axes come last, in the order in which they are walked.
"""

import math
from typing import Any

from edgekd.backends.tvm.tile import Tile

PAD, SUM, CROP = "edgekd_pad", "edgekd_sum", "edgekd_crop"

PARALLEL_FROM = 1 << 20
"""Multiply-adds below which waking a second thread costs more than it saves (a few us)."""


def note(tile: Tile) -> dict[str, Any]:
    """The annotation that carries a layer's tile through fusion."""
    return {"edgekd_tile": [tile.rows, tile.columns, tile.vectors, tile.lanes]}


def schedule_sum(schedule: Any, blocks: list[Any], at: int) -> None:
    """Schedule a function whose block number `at` is the sums.

    The blocks after it are inlined into the last one, which runs on each tile while it is still
    in registers; it alone meets the cropped edge.
    """
    noted = schedule.get(blocks[at]).annotations["edgekd_tile"]
    tile = Tile(*(int(size) for size in noted))
    for block in blocks[:at]:
        _pad(schedule, block, tile.lanes)
    for block in blocks[at + 1 : -1]:
        schedule.compute_inline(block)
    _tile(schedule, blocks[at], blocks[-1], tile)
    schedule.unannotate(blocks[at], "edgekd_tile")


def _pad(schedule: Any, block: Any, lanes: int) -> None:
    elements = math.prod(extent(schedule, loop) for loop in schedule.get_loops(block))
    *outer, channel = schedule.get_loops(block)
    rows = schedule.fuse(*outer[:-1])
    if extent(schedule, channel) % lanes == 0:
        schedule.vectorize(schedule.split(channel, [None, lanes])[1])
    if elements >= PARALLEL_FROM:
        schedule.parallel(rows)


def _tile(schedule: Any, sums: Any, last: Any, tile: Tile) -> None:
    loops = schedule.get_loops(sums)
    work = math.prod(extent(schedule, loop) for loop in loops)
    n, y, x, o, i, *reduction = loops
    yo, yi = schedule.split(y, [None, tile.rows])
    xo, xi = schedule.split(x, [None, tile.columns])
    cu, cv = schedule.split(i, [None, tile.lanes])
    schedule.reorder(n, yo, o, xo, *reduction, yi, xi, cu, cv)
    schedule.reverse_compute_at(last, xo)
    outer = schedule.fuse(n, yo, o)
    if work >= PARALLEL_FROM:
        schedule.parallel(outer)
    schedule.set_scope(sums, 0, "local")
    for loop in (yi, xi, cu, *(reduction if len(reduction) == 2 else ())):
        schedule.unroll(loop)
    schedule.vectorize(cv)
    start = schedule.decompose_reduction(sums, reduction[0])
    _inner(schedule, start, tile.lanes)
    _inner(schedule, last, tile.lanes)


def _inner(schedule: Any, block: Any, lanes: int) -> None:
    """Vectorize the channels of a block inside the tile and unroll the rest of its loops."""
    *spatial, channel = schedule.get_loops(block)[2:]
    if extent(schedule, channel) % lanes == 0:
        channel, vector = schedule.split(channel, [None, lanes])
        schedule.vectorize(vector)
    for loop in (*spatial, channel):
        schedule.unroll(loop)


def extent(schedule: Any, loop: Any) -> int:
    """The number of a loop's iterations."""
    return int(schedule.get(loop).extent)
