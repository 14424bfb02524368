"""A PAD that only feeds convolutions becomes their own padding, which takes no memory and no time;
so does a PADV2 of the least int8 that only feeds pools of the maximum.

The zero point adds nothing to a sum, and the least value changes no maximum, so no output changes.
"""

from dataclasses import replace

from edgekd.firmware.graph import Network, Node
from edgekd.firmware.kernels.copy import pads
from edgekd.firmware.quantization import INT8_MIN
from edgekd.firmware.windows import VALID

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def absorb_padding(network: Network) -> Network:
    """The network without those PADs that convolutions can take over."""
    taken: dict[int, Node] = {}
    for node in network.nodes:
        if _is_taken(node, network):
            taken[node.output.index] = node
    nodes = []
    for node in network.nodes:
        source = node.inputs[0] if node.inputs else None
        if node in taken.values():
            continue
        if source is not None and source.index in taken:
            pad = taken[source.index]
            inner = pad.computed(0)
            _, rows, columns, _ = pads(pad, inner)
            options = {**node.options, "PadY": rows, "PadX": columns}
            node = replace(node, inputs=(inner, *node.inputs[1:]), options=options)
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def _is_taken(pad: Node, network: Network) -> bool:
    """Whether it pads only height and width, and is read only by windows that take it over."""
    kinds = _takers(pad)
    if not kinds:
        return False
    source, output = pad.computed(0), pad.output
    if len(source.shape) != 4 or source.grid != output.grid or output in network.outputs:
        return False
    around = pads(pad, source)
    grown = tuple(s + b + e for s, (b, e) in zip(source.shape, around, strict=True))
    if around[0] != (0, 0) or around[3] != (0, 0) or grown != output.shape:
        return False
    users = [node for node in network.nodes if output in node.inputs]
    return bool(users) and all(
        user.kind in kinds
        and user.inputs.index(output) == 0
        and user.inputs.count(output) == 1
        and user.options.get("Padding") == VALID
        for user in users
    )


def _takers(pad: Node) -> tuple[str, ...]:
    """The operators that may take over a padding by its value; none for an operator that does not
    pad."""
    if pad.kind == "PAD":
        return CONVOLUTIONS
    if pad.kind != "PADV2":
        return ()
    value = pad.computed(2)
    if value.grid != pad.output.grid or value.values is None or value.elements != 1:
        return ()
    return ("MAX_POOL_2D",) if value.values.reshape(-1)[0] == INT8_MIN else ()
