"""All patches of a segment as one loop: the numbers that differ from patch to patch are products of
one that differs by row and one that differs by column."""

from collections.abc import Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np

from edgekd.firmware.graph import Array
from edgekd.firmware.loop import ByPatch, Loop
from edgekd.firmware.patches.patch_steps import Lower, patch_steps
from edgekd.firmware.patches.segments import Grid
from edgekd.firmware.step import Step, Table


class CanNotLoop(ValueError):
    """The patches of a grid need different kernels, or numbers that are no such products."""


def looped(grid: Grid, lower: Lower, begin: int) -> tuple[list[Step], Loop]:
    """The steps of all patches, and their loop when they follow `begin` other steps.

    Raises `CanNotLoop`.
    """
    rows, columns = grid.shape
    every = [[patch_steps(grid, (i, j), lower) for j in range(columns)] for i in range(rows)]
    counts = {len(one) for row in every for one in row}
    if len(counts) != 1:
        raise CanNotLoop("patches of different steps")
    largest = every[grid.largest[0]][grid.largest[1]]
    steps = [
        _joined(largest[number], [[one[number] for one in row] for row in every])
        for number in range(len(largest))
    ]
    segment = grid.segment
    loop = Loop(
        begin, begin + len(steps), rows, columns, segment.source, segment.output, grid.ahead
    )
    return steps, loop


def _joined(largest: Step, every: Sequence[Sequence[Step]]) -> Step:
    """One step for that of each patch."""
    flat = [one for row in every for one in row]
    if len({(one.kernel, tuple(one.parameters)) for one in flat}) != 1:
        raise CanNotLoop(f"patches with other kernels than {largest.kernel}")
    parameters = {
        name: _value([[one.parameters[name] for one in row] for row in every])
        for name in largest.parameters
    }
    scratch = [one.scratch for one in flat]
    ahead = [one.ahead for one in flat]
    return replace(
        largest,
        parameters=parameters,
        inputs=tuple(
            _largest([one.inputs[place] for one in flat]) for place in range(len(largest.inputs))
        ),
        output=_largest([one.output for one in flat]),
        in_place=tuple(n for n in largest.in_place if all(_may_take(one, n) for one in flat)),
        scratch=None if None in scratch else max(one for one in scratch if one is not None),
        ahead=None if None in ahead else max(one for one in ahead if one is not None),
    )


def _may_take(step: Step, place: int) -> bool:
    """Whether the output may be where that input is."""
    return place in step.in_place and step.output.bytes <= step.inputs[place].bytes


def _largest(arrays: Sequence[Array]) -> Array:
    """The array with room for each of them."""
    first = arrays[0]
    if first.values is not None:
        return first
    shape = tuple(max(sizes) for sizes in zip(*(one.shape for one in arrays), strict=True))
    return replace(first, shape=shape)


def _value(values: Sequence[Sequence[Any]]) -> Any:
    first = values[0][0]
    if isinstance(first, Table):
        if any(one.key != first.key for row in values for one in row):
            raise CanNotLoop("patches with tables of their own")
        return first
    if isinstance(first, list):
        return [_value([[one[n] for one in row] for row in values]) for n in range(len(first))]
    return product_of(np.array(values, np.int64))


def product_of(values: np.ndarray) -> int | ByPatch:
    """(rows, columns) numbers as products, or as one number if all are equal.

    Raises `CanNotLoop` for any others.
    """
    if (values == values[0, 0]).all():
        return int(values[0, 0])
    by_row, by_column = values[:, 0], values[0]
    if (values == by_column).all():
        rows, columns = np.ones_like(by_row), by_column
    elif (values == by_row[:, None]).all():
        rows, columns = by_row, np.ones_like(by_column)
    else:
        rows = by_row // max(gcd(*by_row.tolist()), 1)
        if rows[0] == 0 or (by_column % rows[0]).any():
            raise CanNotLoop("numbers that are no products")
        columns = by_column // rows[0]
    if not np.array_equal(np.outer(rows, columns), values):
        raise CanNotLoop("numbers that are no products")
    return ByPatch(tuple(rows.tolist()), tuple(columns.tolist()))
