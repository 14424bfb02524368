"""The width in bits of what an operator reads and writes, which its node's `meta` carries."""

from collections.abc import Collection

from torch import fx

from edgekd.network.fx_names import layer_of
from edgekd.quant import ops

WRITES = "bits_written"
"""The key of the width of a node's result, where that is not eight bits."""

READS = "bits_read"
"""The key of the width of what a node reads, where it differs from that of its result."""


def bits_written(node: fx.Node) -> int:
    """The width of a node's result, 8 or 16."""
    return int(node.meta.get(WRITES, 8))


def bits_read(node: fx.Node) -> int:
    """The width of the values that a node reads, 8 or 16."""
    return int(node.meta.get(READS, bits_written(node)))


def fused_clamp(node: fx.Node) -> fx.Node | None:
    """The clamp that is the only user of a layer or an addition."""
    if node.target not in ops.FUSABLE or len(node.users) != 1:
        return None
    user = next(iter(node.users))
    return user if user.target in ops.FUSED else None


def is_float_layer(node: fx.Node, floats: Collection[str]) -> bool:
    """Whether a node is a layer named in `floats`, or the clamp after one."""
    source = node.args[0] if node.args and node.target in ops.FUSED else node
    layer = isinstance(source, fx.Node) and source.target in ops.WEIGHTED
    return layer and layer_of(source) in floats  # type: ignore[arg-type]
