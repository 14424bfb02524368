"""Which layers are computed patch by patch, and in which grid: with the fewest multiplications by
which every part of the network fits a limit of memory.

The network is parted where a single tensor is alive. Each part between two such places is computed
layer by layer, or in patches; the cheapest way from the first place to the last is a shortest path.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from edgekd.errors import InputError
from edgekd.firmware.graph import Array, Network
from edgekd.firmware.layout import bytes_by_step
from edgekd.firmware.patches.lowering import CanNotLoop, looped
from edgekd.firmware.patches.patch_steps import Lower
from edgekd.firmware.patches.segments import Grid, cuts, grids, segment_between

MOST_PLACES = 16
"""How many places further a part in patches may end."""

NEVER = 1 << 40
"""More memory than any limit."""

Choice = tuple[Grid, ...]
"""The grids of the parts that are computed in patches, in order."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A network, the places where it may be parted, with the tensor that is alive there, and what
    has been worked out about its parts. `by_layer` has the most memory that the nodes between each
    place and the next need, layer by layer; `peaks` has those of each grid."""

    network: Network
    lower: Lower
    places: Sequence[tuple[int, Array | None]]
    by_layer: Sequence[int]
    grids: dict[tuple[int, int], list[Grid]] = field(default_factory=dict)
    peaks: dict[Grid, int] = field(default_factory=dict)


def parts_of(network: Network, lower: Lower) -> Parts:
    """The parts of a network. A place is kept where the tensor is smaller than at the place before
    it, or no larger than at both of its neighbours."""
    every = cuts(network)
    sizes = [one.bytes for _, one in every]
    kept: dict[int, Array | None] = {0: None, len(network.nodes): None}
    for number, (place, array) in enumerate(every):
        around = sizes[max(number - 1, 0) : number + 2]
        shrinks = number > 0 and sizes[number] < sizes[number - 1]
        if place in kept or shrinks or sizes[number] == min(around):
            kept[place] = array
    places = sorted(kept.items())
    steps = [lower(node) for node in network.nodes]
    used = iter(bytes_by_step(network, [step for one in steps for step in one]))
    by_node = [max([next(used) for _ in one], default=0) for one in steps]
    by_layer = [max(by_node[begin:end], default=0) for (begin, _), (end, _) in pairwise(places)]
    return Parts(network, lower, places, by_layer)


@dataclass(frozen=True)
class _Way:
    """A way to compute everything before a place: the multiplications that are done again, the
    grids, and the bytes that the last parts in patches take in a row, since each of their outputs
    begins before the one before it."""

    cost: int = 0
    grids: Choice = ()
    row_bytes: int = 0


def choose(parts: Parts, limit: int) -> Choice | None:
    """The grids with the fewest multiplications within the limit; nothing if there are none."""
    count = len(parts.places)
    best = {0: _Way()}
    for begin in range(count - 1):
        if begin not in best:
            continue
        way = best[begin]
        if parts.by_layer[begin] <= limit:
            _improve(best, begin + 1, replace(way, row_bytes=0))
        for end in range(begin + 1, min(begin + MOST_PLACES, count - 1) + 1):
            if max(parts.by_layer[begin:end]) <= limit:
                continue
            grid = _cheapest(parts, begin, end, limit, way.row_bytes)
            if grid is not None:
                row = (way.row_bytes or grid.segment.source.bytes) + grid.ahead
                cost = way.cost + grid.macs - grid.segment.macs
                _improve(best, end, _Way(cost, (*way.grids, grid), row))
    return best[count - 1].grids if count - 1 in best else None


def _improve(best: dict[int, _Way], at: int, way: _Way) -> None:
    if at not in best or way.cost < best[at].cost:
        best[at] = way


def _cheapest(parts: Parts, begin: int, end: int, limit: int, row_bytes: int) -> Grid | None:
    """The grid of the fewest multiplications that fits, for the part between two places."""
    if (begin, end) not in parts.grids:
        place, source = parts.places[begin]
        segment = source and segment_between(parts.network, (place, source), parts.places[end][0])
        parts.grids[begin, end] = grids(segment) if segment else []
    fitting = (
        grid
        for grid in parts.grids[begin, end]
        if max(grid.least_bytes, row_bytes + grid.ahead) <= limit and _peak(parts, grid) <= limit
    )
    return next(fitting, None)


def _peak(parts: Parts, grid: Grid) -> int:
    """The most bytes in use at once in the part alone."""
    if grid not in parts.peaks:
        segment = grid.segment
        try:
            steps, loop = looped(grid.examples, parts.lower, 0)
        except (CanNotLoop, InputError):
            give_up(parts, grid)
            return NEVER
        network = Network(segment.nodes, (segment.source,), (segment.output,))
        loops = [replace(loop, ahead=grid.ahead)]
        parts.peaks[grid] = max(bytes_by_step(network, steps, loops))
    return parts.peaks[grid]


def give_up(parts: Parts, grid: Grid) -> None:
    """Never choose this grid again."""
    parts.peaks[grid] = NEVER
