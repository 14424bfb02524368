"""The size of an arena for a graph's computed tensors, from a plan of their lifetimes."""

from collections.abc import Iterable, Sequence

from edgekd.formats.graph import Graph, lifetimes

ALIGNMENT = 64
"""Bytes; TFLite's kDefaultTensorAlignment."""

Block = tuple[int, int, int, int]  # offset, end, first step, last step


def planned_arena(graph: Graph, alignment: int = ALIGNMENT) -> tuple[int | None, str]:
    """Bytes of an arena planned greedily by size, or None with the reason.

    Tensors are placed largest first, each at the lowest offset where it overlaps no tensor that is
    alive at the same time: Pisarchyk and Lee, "Efficient memory management for deep neural net
    inference" (2020), algorithm 3, which TFLite's ArenaPlanner follows. Further memory of kernels
    (im2col, packed weights) is not in the file.
    """
    tensors = []
    for key, (first, last) in lifetimes(graph).items():
        tensor = graph.tensors.get(key)
        size = tensor.bytes if tensor is not None else None
        if size is None:
            return None, f"the file does not give the size of tensor '{key}'"
        tensors.append((size, first, last))
    return arena_of_blocks(tensors, alignment), ""


def arena_of_blocks(blocks: Iterable[tuple[int, int, int]], alignment: int = ALIGNMENT) -> int:
    """The same for blocks of bytes, each with its first and last step."""
    aligned = [(-(-size // alignment) * alignment, first, last) for size, first, last in blocks]
    placed: list[Block] = []
    for size, first, last in sorted(aligned, key=lambda one: (-one[0], one[1])):
        alive = sorted(block for block in placed if block[2] <= last and first <= block[3])
        offset = _lowest_gap(alive, size)
        placed.append((offset, offset + size, first, last))
    return max((block[1] for block in placed), default=0)


def _lowest_gap(alive: Sequence[Block], size: int) -> int:
    offset = 0
    for begin, end, _, _ in alive:
        if begin - offset >= size:
            return offset
        offset = max(offset, end)
    return offset
