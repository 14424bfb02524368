"""What the cost of an operator is made of: the facts that cost models weigh, and the groups of
operators that share weights.

A kernel is a nest of loops: over the output's positions, over the filters, and over the products
of one output value. Each loop costs something at every level outside it, so the facts are the
products of the three sizes, also rounded up to the vectors and tiles that kernels work in, and the
bytes that are read, written and stored. Which of them count on a device, the fit decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekd.measure.cost_windows import CONVOLUTIONS
from edgekd.measure.operator_costs import Operator

Group = tuple[str, ...]
"""What fits share: an operator's kind, and for one without products what stands before it, since a
runtime fuses an activation into a convolution."""

TILES = ((1, 2, 8), (1, 4, 4), (1, 16, 1), (3, 2, 1), (3, 2, 8))
"""Multiples of positions, filters and products to which kernels round up."""

BLOCK = 16
"""The channels in one block of ONNX Runtime's layout for convolutions with AVX-512."""

STEP = 3
"""The positions that a kernel computes at once; a last step with fewer takes as long."""

PART = 512
"""The products after which a kernel adds up in a wider type."""

WORD = 4
"""The values that are read at once; columns of another length are copied first."""


def roofline_facts(operator: Operator) -> np.ndarray:
    """(4,): a constant, the multiply-accumulates, bytes moved and bytes of constants."""
    moved = operator.read + operator.written
    return np.array([1.0, operator.macs, moved, operator.constant], dtype=float)


def loop_facts(operator: Operator) -> np.ndarray:
    """(27,): the products of the sizes of an operator's loops, the bytes, the sizes rounded up to
    tiles, what a kernel does for each tile, and the work within and beside the image."""
    positions, filters, rows = operator.positions, operator.filters, operator.rows
    outputs = max(1, positions * filters)
    inner = operator.macs / outputs
    loops = [
        1.0, positions, filters, outputs, positions * inner, filters * inner, operator.macs,
        operator.read, operator.written, operator.constant,
    ]  # fmt: skip
    sizes = (positions, filters, inner)
    tiled = [np.prod([_up(size, by) for size, by in zip(sizes, tile, strict=True)])
             for tile in TILES]  # fmt: skip
    steps, pairs = _up(positions, STEP), _up(filters, 2)
    parts = _up(inner, PART) / PART
    by_step = [steps, steps * inner, steps * pairs, steps * pairs * parts]
    uneven = positions * inner * (inner % WORD > 0)
    lines = rows * _up(positions / max(1, rows), 2)
    taps = operator.taps
    window = [
        taps, taps * operator.channels, taps * filters * operator.channels,
        max(0, positions * operator.kernel - taps), lines * filters,
    ]  # fmt: skip
    return np.array([*loops, *tiled, *by_step, uneven, *window, rows, rows * filters])


def _up(size: float, multiple: int) -> float:
    return float(-(-size // multiple) * multiple) if multiple > 1 else float(size)


def groups_of(operators: Sequence[Operator]) -> list[Group]:
    """The finest group of each operator of a file."""
    before = ["", *(operator.kind for operator in operators)]
    return [_group(operator, last) for operator, last in zip(operators, before, strict=False)]


def wider_groups(group: Group) -> list[Group]:
    """A group and those that contain it, the finest first; the last has every operator."""
    return [group[:length] for length in range(len(group), -1, -1)]


def nearest_group(group: Group, known: Mapping[Group, Any]) -> Group:
    """The finest group that is known of those that contain this one."""
    return next(wider for wider in wider_groups(group) if wider in known)


def _group(operator: Operator, before: str) -> Group:
    if not operator.macs:
        return (operator.kind, "with constants" if operator.constant else "computed", before)
    if operator.groups > 1:
        shape = "depthwise" if operator.channels == 1 else "grouped"
    else:
        shape = "dense" if operator.positions > 1 else "one position"
    layout = _layout(operator)
    return (operator.kind, shape, layout, f"kernel {operator.kernel}", f"stride {operator.stride}")


def _layout(operator: Operator) -> str:
    """Whether ONNX Runtime's convolution finds channels in whole blocks: its fast kernels compute
    blocks of channels, and what has others takes a slower way."""
    if operator.kind not in CONVOLUTIONS:
        return ""
    both = (operator.filters,) if operator.groups > 1 else (operator.filters, operator.channels)
    return "blocks" if all(size % BLOCK == 0 for size in both) else "no blocks"


SIZES = 12
"""How many of an operator's numbers in `shape_of` are logarithms of sizes."""


def shape_of(operator: Operator) -> list[float]:
    """What an interpolation sees of an operator: sizes on a logarithmic scale, and what is left
    over of the vectors' widths."""
    sizes = (
        operator.macs, operator.read, operator.written, operator.constant, operator.kernel,
        operator.groups, operator.channels, operator.filters, operator.positions,
        operator.macs / max(1, operator.read + operator.written + operator.constant),
        operator.taps, operator.rows,
    )  # fmt: skip
    rest = (operator.channels % 16, operator.filters % 16)
    return [*(float(np.log2(1 + size)) for size in sizes), *map(float, rest)]
