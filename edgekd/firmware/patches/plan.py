"""A network's steps and their memory: layer by layer where that fits, else partly in patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edgekd.errors import InputError
from edgekd.firmware.graph import Network, Node
from edgekd.firmware.layout import Layout, lay_out
from edgekd.firmware.loop import Loop
from edgekd.firmware.options import named_option
from edgekd.firmware.patches.choice import Choice, Parts, choose, give_up, parts_of
from edgekd.firmware.patches.lowering import CanNotLoop, looped
from edgekd.firmware.patches.patch_steps import Lower
from edgekd.firmware.step import Step

Patches = Literal["auto", "never", "always"]
"""Whether layers may be computed patch by patch: if the arena would not fit otherwise, never, or
always, for the smallest arena."""

AIMS = (1.0, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.86, 0.82, 0.77, 0.7, 0.6)
SHARES = (1.0, 1.01, 1.02, 1.04, 1.08, 1.16)
"""Shares of a limit, and of the least that may be alive at once: how much may be alive in the plans
that are tried, since the arena can be larger than that."""


def check_patches(name: str) -> Patches:
    """The mode of that name. Raises `InputError` for an unknown one."""
    names: tuple[Patches, ...] = get_args(Patches)
    return named_option("patches", name, names)


@dataclass(frozen=True)
class Patching:
    """Whether layers may be computed in patches, and how large the arena may be."""

    mode: Patches = "auto"
    arena_limit: int | None = None


LAYER_BY_LAYER = Patching("never")


@dataclass(frozen=True)
class Planned:
    """The steps, those of them that are repeated, their memory, and the arena that they would need
    layer by layer."""

    steps: tuple[Step, ...]
    layout: Layout
    layered_bytes: int
    loops: tuple[Loop, ...] = ()
    grids: Choice = ()

    @property
    def recomputed_macs(self) -> int:
        """The multiplications that are done more than once, in the halos of patches."""
        return sum(grid.macs - grid.segment.macs for grid in self.grids)


def plan(network: Network, lower: Lower, patching: Patching, where: str) -> Planned:
    """The network's plan. If no plan is within the limit, it is the one of the smallest arena.

    Raises `InputError` if the arena would exceed 1 GiB.
    """
    steps = tuple(step for node in network.nodes for step in lower(node))
    layout = lay_out(network, steps, where)
    layered = Planned(steps, layout, layout.arena_bytes)
    limit = patching.arena_limit
    fits = limit is None or layout.arena_bytes <= limit
    if patching.mode == "never" or (patching.mode == "auto" and fits):
        return layered
    parts = parts_of(network, _remembered(lower))
    found = None
    if patching.mode == "auto" and limit is not None:
        found = _within(parts, limit, layered, where)
    found = found or _smallest(parts, layered, where)
    return found if found.layout.arena_bytes < layout.arena_bytes else layered


def _within(parts: Parts, limit: int, layered: Planned, where: str) -> Planned | None:
    """The plan with the fewest multiplications within the limit. What is alive at once is a lower
    bound of the arena, so the aim is lowered where the arena is above it."""
    for share in AIMS:
        grids = choose(parts, int(limit * share))
        if grids is None:
            return None
        found = planned_with(parts, grids, layered, where)
        if found is not None and found.layout.arena_bytes <= limit:
            return found
    return None


def _smallest(parts: Parts, layered: Planned, where: str) -> Planned:
    """The plan of the smallest arena among those for the least that may be alive at once, and for a
    little more, which can be easier to place."""
    low, high = 0, layered.layout.bound_bytes
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if choose(parts, middle) is not None else (middle + 1, high)
    plans = [layered]
    for share in SHARES:
        grids = choose(parts, int(low * share))
        found = grids and planned_with(parts, grids, layered, where)
        if found:
            plans.append(found)
    return min(plans, key=lambda found: (found.layout.arena_bytes, found.recomputed_macs))


def planned_with(parts: Parts, grids: Choice, layered: Planned, where: str) -> Planned | None:
    """The plan with these grids; nothing if one of them can't be a loop, which is then given up."""
    steps: list[Step] = []
    loops: list[Loop] = []
    place = 0
    for grid in grids:
        steps += _steps(parts.network.nodes[place : grid.segment.begin], parts.lower)
        try:
            repeated, loop = looped(grid, parts.lower, len(steps))
        except (CanNotLoop, InputError):
            give_up(parts, grid)
            return None
        steps += repeated
        loops.append(loop)
        place = grid.segment.end
    steps += _steps(parts.network.nodes[place:], parts.lower)
    layout = lay_out(parts.network, steps, where, loops)
    return Planned(tuple(steps), layout, layered.layered_bytes, tuple(loops), grids)


def _steps(nodes: Sequence[Node], lower: Lower) -> list[Step]:
    return [step for node in nodes for step in lower(node)]


def _remembered(lower: Lower) -> Lower:
    """The same, with each size of a node lowered once."""
    known: dict[tuple[object, ...], list[Step]] = {}

    def remembering(node: Node) -> list[Step]:
        arrays = (*node.inputs, *node.outputs)
        key = (
            node.where,
            tuple((one.index, one.shape) for one in arrays if one is not None),
            node.options.get("PadY"),
            node.options.get("PadX"),
        )
        if key not in known:
            known[key] = lower(node)
        return known[key]

    return remembering
