"""Where each tensor is placed in one static arena; the generator plans it ahead of time.

Finding the smallest arena is dynamic storage allocation, which is NP-hard. Greedy first fit in
several orders reaches the lower bound for networks that fit a microcontroller; where it does not, a
short seeded search over orders follows.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

ALIGNMENT = 4
SEARCH_BLOCKS = 256
SEARCH_ROUNDS = 300


@dataclass(frozen=True)
class Block:
    """Memory that is in use from step `first` to step `last`, inclusive."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Trail:
    """Block `later` may overwrite block `earlier` while both are in use, if it begins at least
    `ahead` bytes before it; with `ahead` None, if both begin at the same place."""

    later: int
    earlier: int
    ahead: int | None


@dataclass(frozen=True)
class Plan:
    """The offset of each block, the size of the arena, and the lower bound of any plan."""

    offsets: tuple[int, ...]
    arena_bytes: int
    bound_bytes: int


def aligned(size: int) -> int:
    """The size rounded up to whole words."""
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def live_bytes(blocks: Sequence[Block], trails: Sequence[Trail] = ()) -> list[int]:
    """The bytes in use at each step, with each block rounded up to whole words."""
    live = [0] * (max((block.last for block in blocks), default=-1) + 2)

    def add(size: int, first: int, last: int) -> None:
        live[first] += size
        live[last + 1] -= size

    for block in blocks:
        add(aligned(block.size), block.first, block.last)
    for trail in trails:
        add(-saving(blocks, trail), blocks[trail.later].first, blocks[trail.earlier].last)
    return list(accumulate(live))[:-1]


def live_bound(blocks: Sequence[Block], trails: Sequence[Trail] = ()) -> int:
    """The most bytes in use at one step."""
    return max(live_bytes(blocks, trails), default=0)


def saving(blocks: Sequence[Block], trail: Trail) -> int:
    """The bytes that two blocks have in common where they share the most."""
    later, earlier = aligned(blocks[trail.later].size), aligned(blocks[trail.earlier].size)
    ahead = min(aligned(trail.ahead or 0), later)
    return later + earlier - max(ahead + earlier, later)


def plan_memory(blocks: Sequence[Block], trails: Sequence[Trail] = ()) -> Plan:
    """Offsets such that no two blocks that are alive at the same step overlap, but for `trails`;
    deterministic.

    Raises `ValueError` for a block without a size, or one that ends before it begins.
    """
    if any(block.size < 1 or block.last < block.first for block in blocks):
        raise ValueError("a block needs a size, and can't end before it begins")
    if not blocks:
        return Plan((), 0, 0)
    bound = live_bound(blocks, trails)
    gaps = _gaps(blocks, trails)
    tried = [_first_fit(blocks, order, gaps) for order in _orders(blocks)]
    best = min((_height(blocks, offsets), offsets) for offsets in tried)
    if best[0] > bound and len(blocks) <= SEARCH_BLOCKS:
        best = _search(blocks, best, bound, gaps)
    return Plan(tuple(best[1]), best[0], bound)


Gaps = Mapping[tuple[int, int], tuple[tuple[int, int], ...]]
"""For (one, other), where `one` can't begin, between two places relative to the other's."""


def _gaps(blocks: Sequence[Block], trails: Sequence[Trail]) -> Gaps:
    found: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for trail in trails:
        before, behind = aligned(blocks[trail.later].size), aligned(blocks[trail.earlier].size)
        if trail.ahead is None:
            apart: tuple[tuple[int, int], ...] = ((-before, 0), (0, behind))
        else:
            apart = ((-min(aligned(trail.ahead), before), behind),)
        found[trail.later, trail.earlier] = apart
        mirrored = tuple((-end, -begin) for begin, end in reversed(apart))
        found[trail.earlier, trail.later] = mirrored
    return found


def _orders(blocks: Sequence[Block]) -> list[list[int]]:
    """Largest first, largest area first, longest-lived first, and as given."""
    every = range(len(blocks))

    def length(index: int) -> int:
        return blocks[index].last - blocks[index].first + 1

    return [
        sorted(every, key=lambda i: (-blocks[i].size, blocks[i].first, i)),
        sorted(every, key=lambda i: (-blocks[i].size * length(i), i)),
        sorted(every, key=lambda i: (-length(i), -blocks[i].size, i)),
        sorted(every, key=lambda i: (blocks[i].first, -blocks[i].size, i)),
        sorted(every, key=lambda i: (-blocks[i].last, -blocks[i].size, i)),
    ]


def _first_fit(blocks: Sequence[Block], order: Sequence[int], gaps: Gaps) -> list[int]:
    """Each block in turn at the lowest offset that is free during its lifetime."""
    offsets = [0] * len(blocks)
    placed: list[int] = []
    for index in order:
        block = blocks[index]
        refused = sorted(
            (offsets[other] + begin, offsets[other] + end)
            for other in placed
            if blocks[other].first <= block.last and block.first <= blocks[other].last
            for begin, end in gaps.get(
                (index, other), ((-aligned(block.size), aligned(blocks[other].size)),)
            )
        )
        offset = 0
        for begin, end in refused:
            if offset <= begin:
                break
            offset = max(offset, end)
        offsets[index] = offset
        placed.append(index)
    return offsets


def _height(blocks: Sequence[Block], offsets: Sequence[int]) -> int:
    return max(at + aligned(block.size) for at, block in zip(offsets, blocks, strict=True))


def _search(
    blocks: Sequence[Block], best: tuple[int, list[int]], bound: int, gaps: Gaps
) -> tuple[int, list[int]]:
    """Swap two blocks in the best order and keep what is no worse; seeded, so deterministic."""
    chance = random.Random(0)
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].size, blocks[i].first, i))
    height = _height(blocks, _first_fit(blocks, order, gaps))
    for _ in range(SEARCH_ROUNDS):
        one, other = chance.randrange(len(order)), chance.randrange(len(order))
        order[one], order[other] = order[other], order[one]
        offsets = _first_fit(blocks, order, gaps)
        found = _height(blocks, offsets)
        if found <= height:
            height = found
        else:
            order[one], order[other] = order[other], order[one]
        if found < best[0]:
            best = found, offsets
        if best[0] == bound:
            break
    return best
