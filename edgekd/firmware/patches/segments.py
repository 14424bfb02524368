"""The parts of a network that can be computed patch by patch, and the grids of patches of each."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgekd.firmware.graph import Array, Network, Node
from edgekd.firmware.patches.intervals import DIMENSION, Axis, axis_patch, can_be_patched, macs

MOST_PATCHES = 64
"""Along one axis."""


@dataclass(frozen=True, eq=False)
class Segment:
    """The nodes from `begin` to before `end`, which read one computed tensor and leave one."""

    nodes: tuple[Node, ...]
    begin: int
    end: int
    source: Array

    @property
    def output(self) -> Array:
        """The tensor that it leaves."""
        return self.nodes[-1].output

    @cached_property
    def macs(self) -> int:
        """The multiplications of its convolutions when nothing is computed twice."""
        return sum(macs(node, node.output.shape[1] * node.output.shape[2]) for node in self.nodes)


@dataclass(frozen=True, eq=False)
class Grid:
    """The patches of a segment: those along its height, and those along its width."""

    segment: Segment
    rows: Axis
    columns: Axis

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of patches along height and width."""
        return len(self.rows.patches), len(self.columns.patches)

    @cached_property
    def macs(self) -> int:
        """The multiplications of all patches, halos included."""
        rows, columns = self.rows.total, self.columns.total
        return sum(
            macs(node, rows[node.output.index] * columns[node.output.index])
            for node in self.segment.nodes
        )

    @cached_property
    def least_bytes(self) -> int:
        """Less than its steps can need: the source and the output, and the largest tensor."""
        source, output = self.segment.source, self.segment.output
        rows, columns = self.rows.most, self.columns.most
        made = [node.output for node in self.segment.nodes]
        largest = max(rows[one.index] * columns[one.index] * one.shape[3] for one in made)
        return max(self.ahead + source.bytes, output.bytes) + largest

    @property
    def examples(self) -> "Grid":
        """The grid of one patch of each size."""
        return Grid(self.segment, self.rows.examples, self.columns.examples)

    @property
    def largest(self) -> tuple[int, int]:
        """The places of the patch that holds the most, along height and width."""
        return self.rows.largest, self.columns.largest

    @cached_property
    def ahead(self) -> int:
        """How many bytes before the source the output has to begin to overwrite what no later patch
        reads."""
        source, output = self.segment.source, self.segment.output
        reads = _corners(self, source, begin=True)
        to_come = np.minimum.accumulate(reads[::-1])[::-1]
        distance = _corners(self, output, begin=False)[:-1] - to_come[1:]
        return int(max(0, distance.max(initial=0)))


def _corners(grid: Grid, array: Array, begin: bool) -> np.ndarray:
    """The offset of the first byte of each patch of a tensor, or of that behind its last byte."""
    width, channels = array.shape[2:]
    rows = np.array([one.held[array.index] for one in grid.rows.patches], np.int64)
    columns = np.array([one.held[array.index] for one in grid.columns.patches], np.int64)
    if begin:
        places = rows[:, :1] * width + columns[:, 0]
    else:
        places = (rows[:, 1:] - 1) * width + columns[:, 1]
    return places.reshape(-1) * channels


def cuts(network: Network) -> list[tuple[int, Array]]:
    """The places before which a single tensor is alive, with that tensor, in order."""
    last: dict[int, int] = {}
    for number, node in enumerate(network.nodes):
        last.update({one.index: number for one in node.inputs if one is not None})
    last.update({one.index: len(network.nodes) for one in network.outputs})
    alive = {one.index: one for one in network.inputs}
    found = []
    for place in range(len(network.nodes) + 1):
        if len(alive) == 1:
            found.append((place, next(iter(alive.values()))))
        if place < len(network.nodes):
            node = network.nodes[place]
            alive |= {one.index: one for one in node.outputs}
            alive = {index: one for index, one in alive.items() if last.get(index, -1) > place}
    return found


def segment_between(network: Network, begin: tuple[int, Array], end: int) -> Segment | None:
    """The segment between two cuts, if all of it can be computed patch by patch."""
    nodes = network.nodes[begin[0] : end]
    if not nodes or not all(can_be_patched(node) for node in nodes):
        return None
    source = begin[1]
    if source.dtype != "int8" or len(source.shape) != 4:
        return None
    return Segment(nodes, begin[0], end, source)


def axes_of(segment: Segment, axis: str) -> list[Axis]:
    """Every way to part the output along an axis into equal parts (the last one may be smaller),
    the coarsest first."""
    size = segment.output.shape[DIMENSION[axis]]
    found = []
    for step in sorted({-(-size // count) for count in range(1, min(size, MOST_PATCHES) + 1)}):
        parts = [
            axis_patch(segment.nodes, axis, (at, min(at + step, size)))
            for at in range(0, size, step)
        ]
        whole = tuple(one for one in parts if one is not None)
        if len(whole) == len(parts):
            found.append(Axis(whole))
    return found[::-1]


def grids(segment: Segment) -> list[Grid]:
    """Every grid of more than one patch, that with the fewest multiplications first."""
    rows, columns = axes_of(segment, "Y"), axes_of(segment, "X")
    every = [Grid(segment, one, other) for one in rows for other in columns]
    several = [grid for grid in every if grid.shape != (1, 1)]
    return sorted(several, key=lambda grid: (grid.macs, grid.shape[0] * grid.shape[1]))
