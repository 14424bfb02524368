"""Chooses each layer's rank: by energy, as a number, or by a MAC budget over all layers."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from edgekd.errors import InputError

Method = Literal["svd", "spatial-svd", "channel-svd", "tucker2"]


@dataclass(frozen=True)
class Option:
    """One way of factorizing a layer: its ranks, MACs, and the share of energy that it loses."""

    method: Method
    ranks: tuple[int, ...]
    macs: int
    error: float


def energy_rank(values: Tensor, energy: float) -> int:
    """The smallest rank whose singular values hold that share of the sum of squares."""
    squares = values.double().square()
    held = squares.cumsum(0) / squares.sum().clamp_min(1e-300)
    return min(len(values), int((held < energy - 1e-12).sum()) + 1)


def tail(values: Tensor, rank: int) -> float:
    """sum_{i > rank} s_i^2 / sum s_i^2: what Eckart & Young 1936 say is lost, relatively."""
    squares = values.double().square()
    return float(squares[rank:].sum() / squares.sum().clamp_min(1e-300))


def rounded_up(rank: int, multiple: int, full: int) -> int:
    """`rank` rounded up to the target's multiple, which costs no more; never above the full
    rank."""
    return min(full, math.ceil(rank / multiple) * multiple)


def grid(full: int, multiple: int) -> list[int]:
    """The ranks worth trying: multiples of the target's, below the full one."""
    return list(range(min(multiple, full), full, multiple)) or [full]


def cheapest_within(
    whole: Mapping[str, int], options: Mapping[str, Sequence[Option]], macs: float
) -> dict[str, Option]:
    """The options with the least total error found whose total cost is at most `macs`. `whole` is
    each layer's cost without a split (error 0). Each layer's options are reduced to the lower
    convex hull of (MACs, error); then the step that loses least per MAC saved over all layers is
    taken until the budget is met. That is optimal up to the last step taken. Raises `InputError` if
    the budget is out of reach.
    """
    total = float(sum(whole.values()))
    hulls = {name: hull(whole[name], found) for name, found in options.items()}
    steps: list[tuple[float, str, int]] = []
    for name, points in hulls.items():
        if len(points) > 1:
            steps.append((_slope(points[0], points[1]), name, 1))
    heapq.heapify(steps)
    chosen: dict[str, Option] = {}
    while total > macs and steps:
        _, name, number = heapq.heappop(steps)
        points = hulls[name]
        total += points[number][0] - points[number - 1][0]
        option = points[number][2]
        assert option is not None
        chosen[name] = option
        if number + 1 < len(points):
            following = _slope(points[number], points[number + 1])
            heapq.heappush(steps, (following, name, number + 1))
    if total > macs:
        raise InputError(
            f"a budget of {macs:,.0f} MACs is out of reach: the lowest ranks still need "
            f"{total:,.0f}",
            hint="raise the budget, or take layers out of 'ignore'",
        )
    return chosen


Point = tuple[int, float, Option | None]


def hull(whole: int, options: Sequence[Option]) -> list[Point]:
    """The hull from the whole layer down in MACs; each step loses more per MAC than the last."""
    start: Point = (whole, 0.0, None)
    cheaper = [(each.macs, each.error, each) for each in options if each.macs < whole]
    points: list[Point] = [start]
    for point in sorted(cheaper, key=lambda each: (-each[0], each[1])):
        while len(points) > 1 and (
            point[1] <= points[-1][1] or _slope(points[-1], point) <= _slope(points[-2], points[-1])
        ):
            points.pop()
        if point[0] < points[-1][0]:
            points.append(point)
    return points


def _slope(first: Point, second: Point) -> float:
    return (second[1] - first[1]) / max(1, first[0] - second[0])
