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
    shape: Sequence[int], strides: Sequence[Sequence[int]], dimensions: int
) -> tuple[list[int], list[list[int]]]:
    """The same walk over several tensors in exactly `dimensions` loops: adjacent loops are joined,
    and loops of 1 added in front.

    Raises `ValueError` if it needs more loops.
    """
    loops: list[tuple[int, ...]] = []
    for size, *steps in zip(shape, *strides, strict=True):
        if size == 1:
            continue
        if loops:
            count, *before = loops[-1]
            if before == [size * step for step in steps]:
                loops[-1] = (count * size, *steps)
                continue
        loops.append((size, *steps))
    if len(loops) > dimensions:
        raise ValueError(
            f"a walk over {len(loops)} dimensions, but at most {dimensions} are supported"
        )
    loops = [(1, *(0 for _ in strides))] * (dimensions - len(loops)) + loops
    sizes, *walks = ([loop[place] for loop in loops] for place in range(len(strides) + 1))
    return sizes, walks
