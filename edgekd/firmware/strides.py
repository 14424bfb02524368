"""Walks over memory: shapes with a stride for each dimension, in as few loops as possible."""

import math
from collections.abc import Sequence


def contiguous(shape: Sequence[int]) -> list[int]:
    """The strides of a contiguous tensor in row-major order."""
    return [math.prod(shape[index + 1 :]) for index in range(len(shape))]


def broadcast(shape: Sequence[int], to: Sequence[int]) -> list[int]:
    """The strides that read a tensor as if it had the shape `to`: 0 where it is repeated.

    Raises `ValueError` if it can't be broadcast.
    """
    missing = len(to) - len(shape)
    if missing < 0:
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(to)}")
    full = [1] * missing + list(shape)
    if any(size not in (1, wanted) for size, wanted in zip(full, to, strict=True)):
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(to)}")
    steps = contiguous(full)
    return [0 if size == 1 else step for size, step in zip(full, steps, strict=True)]


def merged(
    shape: Sequence[int], one: Sequence[int], other: Sequence[int], dimensions: int
) -> tuple[list[int], list[int], list[int]]:
    """The same walk in exactly `dimensions` loops: adjacent loops are joined, and loops of 1 added
    in front.

    Raises `ValueError` if it needs more loops.
    """
    loops: list[tuple[int, int, int]] = []
    for size, first, second in zip(shape, one, other, strict=True):
        if size == 1:
            continue
        if loops:
            count, before, behind = loops[-1]
            if before == first * size and behind == second * size:
                loops[-1] = (count * size, first, second)
                continue
        loops.append((size, first, second))
    if len(loops) > dimensions:
        raise ValueError(
            f"a walk over {len(loops)} dimensions, but at most {dimensions} are supported"
        )
    loops = [(1, 0, 0)] * (dimensions - len(loops)) + loops
    return [a for a, _, _ in loops], [b for _, b, _ in loops], [c for _, _, c in loops]
