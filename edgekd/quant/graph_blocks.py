"""Cuts a float graph into blocks: stretches between values that are all that is passed on."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

MOST_LAYERS = 8
"""Longer stretches, as those under a U-Net's skip connections, are no blocks."""

_FEWEST_LAYERS = 3


@dataclass(frozen=True)
class Block:
    """The nodes after `entry` up to `end`, by name; everything in it follows from `entry` alone.
    `layers` are those of its nodes that count."""

    entry: str
    end: str
    layers: tuple[str, ...]


def blocks_of(graph: fx.GraphModule, layers: Collection[str]) -> list[Block]:
    """The blocks that hold these layers, in order. Short ones are joined up to three layers; layers
    of stretches that are too long are in no block."""
    order = [node for node in graph.graph.nodes if node.op not in ("get_attr", "output")]
    place = {node: number for number, node in enumerate(order)}
    reach = [max((place.get(user, len(order)) for user in n.users), default=-1) for n in order]
    found: list[Block] = []
    entry, furthest = "", -1
    held: list[str] = []
    for number, node in enumerate(order):
        if node.name in layers:
            held.append(node.name)
        if furthest <= number:  # nothing before this node is read after it
            ends = len(held) >= _FEWEST_LAYERS or reach[number] >= len(order)
            if entry and held and ends:
                found.append(Block(entry, node.name, tuple(held)))
                held = []
            if not held:
                entry = node.name
        furthest = max(furthest, reach[number])
    return [block for block in found if len(block.layers) <= MOST_LAYERS]
