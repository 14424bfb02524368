"""What was decided about patches and what it costs, as numbers and as lines of text."""

import math
from collections.abc import Mapping

from edgekd.firmware.graph import Network, Node
from edgekd.firmware.patches.intervals import CONVOLUTIONS, macs
from edgekd.firmware.patches.plan import Patching, Planned
from edgekd.firmware.patches.segments import Grid


def patch_numbers(network: Network, found: Planned) -> Mapping[str, int]:
    """The arena layer by layer, the operators in patches, and the multiplications in all and those
    that are done again in the halos."""
    return {
        "layered_arena_bytes": found.layered_bytes,
        "patched_operators": sum(len(grid.segment.nodes) for grid in found.grids),
        "macs": sum(_macs(node) for node in network.nodes) + found.recomputed_macs,
        "recomputed_macs": found.recomputed_macs,
    }


def patch_notes(network: Network, found: Planned, patching: Patching) -> tuple[str, ...]:
    """If parts of the network are computed in patches, a line on the whole and one for each."""
    arena, limit = found.layout.arena_bytes, patching.arena_limit
    if not found.grids:
        return ()
    once = sum(_macs(node) for node in network.nodes)
    reason = "for the smallest arena"
    if patching.mode == "auto" and limit is not None and arena <= limit:
        reason = f"to fit {limit:,} bytes"
    whole = (
        f"computed partly in patches {reason}: arena {arena:,} bytes instead of "
        f"{found.layered_bytes:,}, {100 * found.recomputed_macs / once:.1f} % more "
        f"multiply-accumulates"
    )
    return whole, *(_line(grid) for grid in found.grids)


def _line(grid: Grid) -> str:
    segment, (rows, columns) = grid.segment, grid.shape
    sizes = ["x".join(map(str, one.shape)) for one in (segment.source, segment.output)]
    more = 100 * (grid.macs / max(segment.macs, 1) - 1)
    return (
        f"operators {segment.begin} to {segment.end - 1} ({' -> '.join(sizes)}) in {rows}x{columns}"
        f" patches: {more:.1f} % more multiply-accumulates in them"
    )


def _macs(node: Node) -> int:
    """The multiplications of a convolution or a fully connected layer."""
    if node.kind in CONVOLUTIONS:
        return macs(node, math.prod(node.output.shape[:-1]))
    if node.kind == "FULLY_CONNECTED" and node.inputs[1] is not None:
        return node.output.elements * node.inputs[1].shape[-1]
    return 0
