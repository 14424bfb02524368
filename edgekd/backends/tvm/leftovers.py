"""Schedules for layers without weights: elementwise chains, pooling, means, small reductions."""

import math
from typing import Any

from edgekd.backends.tvm.tiled_sum import extent

PARALLEL_FROM = 1 << 15
"""Below this many elements one thread is faster than waking a second."""


def schedule_leftover(schedule: Any, blocks: list[Any], lanes: int) -> None:
    """Inline what can be inlined, then vectorize and parallelize each block that remains."""
    remaining = [block for block in blocks if not _inlined(schedule, block)]
    for block in remaining:
        if is_reduction(schedule, block):
            _reduction(schedule, block, lanes)
        else:
            _elementwise(schedule, block, lanes)


def is_reduction(schedule: Any, block: Any) -> bool:
    """Whether a block sums (or takes a maximum) over an axis."""
    return any(int(var.iter_type) == 2 for var in schedule.get(block).iter_vars)


def _inlined(schedule: Any, block: Any) -> bool:
    from tvm.s_tir import ScheduleError

    if is_reduction(schedule, block):
        return False
    try:
        schedule.compute_inline(block)
    except ScheduleError:  # the output, or a block that can't be inlined
        return False
    return True


def _elementwise(schedule: Any, block: Any, lanes: int) -> None:
    loops = schedule.get_loops(block)
    if not loops:
        return
    fused = schedule.fuse(*loops)
    size = extent(schedule, fused)
    if size % lanes == 0:
        fused, vector = schedule.split(fused, [None, lanes])
        schedule.vectorize(vector)
    if size >= PARALLEL_FROM:
        schedule.parallel(fused)


def _reduction(schedule: Any, block: Any, lanes: int) -> None:
    """Sums of one vector of the innermost output axis at a time, held in registers."""
    loops = schedule.get_loops(block)
    kinds = [int(var.iter_type) for var in schedule.get(block).iter_vars]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 2]
    if len(spatial) + len(reduced) != len(loops) or not spatial:
        return
    size = math.prod(extent(schedule, loop) for loop in loops)
    width = _vector(extent(schedule, spatial[-1]), lanes)
    outer, vector = schedule.split(spatial[-1], [None, width])
    schedule.reorder(*spatial[:-1], outer, *reduced, vector)
    fused = schedule.fuse(*spatial[:-1], outer)
    if width > 1:
        schedule.vectorize(vector)
    if size >= PARALLEL_FROM:
        schedule.parallel(fused)
    start = schedule.decompose_reduction(block, reduced[0])
    if width > 1:
        schedule.vectorize(schedule.get_loops(start)[-1])


def _vector(size: int, lanes: int) -> int:
    """The widest vector whose width divides an axis, or 1."""
    width = lanes
    while size % width:
        width //= 2
    return width
