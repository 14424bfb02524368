"""The memory of each tensor of a lowered network: which tensors share it, its lifetime,
its offset."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgekd.errors import InputError
from edgekd.firmware.graph import Array, Network
from edgekd.firmware.loop import Loop
from edgekd.firmware.memory import (
    Block,
    Plan,
    Trail,
    aligned,
    live_bytes,
    plan_memory,
    saving,
)
from edgekd.firmware.step import Step

MAX_ARENA = 1 << 30
MAX_STACK = 2048
"""Bytes of scratch memory that a step may have on the stack where the arena is full."""


@dataclass(frozen=True)
class Layout:
    """`offsets` by tensor, without constants. `bound_bytes` is the largest sum of memory in use at
    one time, below which no plan can go. `scratch` are offsets by step; scratch memory that is not
    there is on the stack."""

    offsets: dict[int, int]
    arena_bytes: int
    bound_bytes: int
    scratch: dict[int, int] = field(default_factory=dict)


def lay_out(
    network: Network, steps: Sequence[Step], where: str, loops: Sequence[Loop] = ()
) -> Layout:
    """Offsets for all computed tensors, and for the scratch memory of steps.

    Raises `InputError` if the arena would exceed 1 GiB.
    """
    demand = _demand(network, steps, loops)
    plan, wanting = _with_scratch(demand.blocks, steps, demand.trails)
    if plan.arena_bytes > MAX_ARENA:
        raise InputError(f"it needs {plan.arena_bytes} bytes of memory", where=where)
    at = dict(zip(demand.keys, plan.offsets, strict=False))
    root = demand.root
    offsets = {array.index: at[root.of(array)] for array in root.arrays.values()}
    scratch = dict(zip(wanting, plan.offsets[len(demand.keys) :], strict=True))
    return Layout(offsets, plan.arena_bytes, plan.bound_bytes, scratch)


def bytes_by_step(network: Network, steps: Sequence[Step], loops: Sequence[Loop] = ()) -> list[int]:
    """What is in use at each step, without the scratch memory that may be on the stack."""
    demand = _demand(network, steps, loops)
    firm = [number for number, step in enumerate(steps) if step.scratch and not _may_move(step)]
    return live_bytes([*demand.blocks, *_scratch_blocks(steps, firm)], demand.trails)


@dataclass(frozen=True)
class _Demand:
    """The blocks of memory, the tensor of each, and which of them may overwrite which."""

    root: "_Roots"
    keys: Sequence[int]
    blocks: Sequence[Block]
    trails: Sequence[Trail]


def _demand(network: Network, steps: Sequence[Step], loops: Sequence[Loop]) -> _Demand:
    root = _Roots(network, steps, loops)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    size: dict[int, int] = {}

    def touch(array: Array, step: int) -> None:
        if array.values is not None:
            return
        block = root.of(array)
        first[block] = min(first.get(block, step), step)
        last[block] = max(last.get(block, step), step)
        size[block] = max(size.get(block, 0), array.bytes)

    for array in network.inputs:
        touch(array, 0)
    for loop in loops:
        touch(loop.source, loop.end - 1)
        touch(loop.output, loop.begin)
    for number, step in enumerate(steps):
        for array in (*step.inputs, step.output):
            touch(array, number)
    for array in network.outputs:
        touch(array, len(steps))
    keys = list(first)
    blocks = [Block(size[key], first[key], last[key]) for key in keys]
    trails = [*_trails(steps, root, keys, blocks), *_loop_trails(loops, root, keys, blocks)]
    return _Demand(root, keys, blocks, trails)


def _loop_trails(
    loops: Sequence[Loop], root: "_Roots", keys: Sequence[int], blocks: Sequence[Block]
) -> list[Trail]:
    """The outputs of loops, which may overwrite what no later patch reads."""
    found = []
    for loop in loops:
        later, earlier = keys.index(root.of(loop.output)), keys.index(root.of(loop.source))
        sizes = blocks[later].size, blocks[earlier].size
        whole = sizes == (loop.output.bytes, loop.source.bytes)
        if whole and (blocks[later].first, blocks[earlier].last) == (loop.begin, loop.end - 1):
            found.append(Trail(later, earlier, loop.ahead))
    return found


def _trails(
    steps: Sequence[Step], root: "_Roots", keys: Sequence[int], blocks: Sequence[Block]
) -> list[Trail]:
    """The outputs that may overwrite an input which nothing else reads any more."""
    at = {key: number for number, key in enumerate(keys)}
    found = []
    for number, step in enumerate(steps):
        source, output = step.inputs[0], step.output
        may_shrink = step.in_place == (0,) and output.bytes <= source.bytes
        if source.values is not None or (step.ahead is None and not may_shrink):
            continue
        later, earlier = at[root.of(output)], at[root.of(source)]
        one, other = blocks[later], blocks[earlier]
        whole = (one.size, other.size) == (output.bytes, source.bytes)
        if later != earlier and whole and one.first == other.last == number:
            found.append(Trail(later, earlier, step.ahead))
    return found


def _with_scratch(
    blocks: Sequence[Block], steps: Sequence[Step], trails: Sequence[Trail]
) -> tuple[Plan, list[int]]:
    """The plan of all blocks and of the scratch memory of these steps. What may be on the stack
    goes there if the arena would have to grow for it."""
    firm = [number for number, step in enumerate(steps) if step.scratch and not _may_move(step)]
    least = plan_memory([*blocks, *_scratch_blocks(steps, firm)], trails)
    free = _fitting(blocks, steps, trails, least.arena_bytes)
    while free:
        wanting = sorted([*firm, *free])
        plan = plan_memory([*blocks, *_scratch_blocks(steps, wanting)], trails)
        if plan.arena_bytes <= least.arena_bytes:
            return plan, wanting
        free = free[: len(free) - max(1, len(free) // 8)]
    return least, firm


def _fitting(
    blocks: Sequence[Block], steps: Sequence[Step], trails: Sequence[Trail], limit: int
) -> list[int]:
    """The steps whose scratch memory fits beside what is in use, those with the most room first."""

    def room(number: int) -> int:
        shared = sum(
            saving(blocks, one)
            for one in trails
            if blocks[one.later].first <= number <= blocks[one.earlier].last
        )
        used = sum(aligned(one.size) for one in blocks if one.first <= number <= one.last)
        return limit + shared - used - aligned(steps[number].scratch or 0)

    fitting = [number for number, step in enumerate(steps) if _may_move(step) and room(number) >= 0]
    return sorted(fitting, key=room, reverse=True)


def _may_move(step: Step) -> bool:
    return step.on_stack and 0 < (step.scratch or 0) <= MAX_STACK


def _scratch_blocks(steps: Sequence[Step], numbers: Sequence[int]) -> list[Block]:
    return [Block(steps[number].scratch or 0, number, number) for number in numbers]


class _Roots:
    """Which tensors share memory: reshaped ones, and those computed in place."""

    def __init__(self, network: Network, steps: Sequence[Step], loops: Sequence[Loop]) -> None:
        self._parent: dict[int, int] = {}
        self.arrays: dict[int, Array] = {}
        for array in network.inputs:
            self._add(array)
        for step in steps:
            self._add(step.output)
        for step in steps:
            if not step.kernel:
                self._join(step.inputs[0], step.output)
        last = self._last_reads(network, steps)
        for loop in loops:
            last[self.of(loop.source)] = loop.end
        for number, step in enumerate(steps):
            self._take_over(step, number, last)

    def _add(self, array: Array) -> None:
        self.arrays[array.index] = array
        self._parent.setdefault(array.index, array.index)

    def of(self, array: Array) -> int:
        """The tensor that represents the memory of this one."""
        index = array.index
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def _join(self, one: Array, other: Array) -> int:
        keep, drop = self.of(one), self.of(other)
        self._parent[drop] = keep
        return keep

    def _last_reads(self, network: Network, steps: Sequence[Step]) -> dict[int, int]:
        last: dict[int, int] = {}
        for number, step in enumerate(steps):
            for array in (*step.inputs, step.output):
                if array.values is None:
                    last[self.of(array)] = number
        for array in network.outputs:
            last[self.of(array)] = len(steps)
        return last

    def _take_over(self, step: Step, number: int, last: dict[int, int]) -> None:
        """Let the output take over the memory of an input that is read here for the last time."""
        for place in step.in_place:
            array = step.inputs[place]
            if array.values is not None or array.bytes != step.output.bytes:
                continue
            if last[self.of(array)] != number or self.of(array) == self.of(step.output):
                continue
            end = last[self.of(step.output)]
            last[self._join(array, step.output)] = end
            return
