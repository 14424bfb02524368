"""MIRROR_PAD, with the border (symmetric) or without it (reflect)."""

from edgekd.firmware.graph import Node
from edgekd.firmware.kernels.copy import pads
from edgekd.firmware.step import Step, about
from edgekd.firmware.strides import contiguous

SYMMETRIC = 1
"""TFLite's number of the mode; 0 is reflect."""


def lower(node: Node) -> list[Step]:
    """One call over four dimensions."""
    source, output = node.computed(0), node.output
    around = pads(node, source)
    edge = int(node.options.get("Mode", 0) == SYMMETRIC)
    wanted = tuple(s + b + e for s, (b, e) in zip(source.shape, around, strict=True))
    if wanted != output.shape or source.grid != output.grid or len(wanted) > 4:
        raise node.refuse(f"{source.shape} padded by {around} is not {output.shape}")
    for size, pad in zip(source.shape, around, strict=True):
        if max(pad) > size - 1 + edge:
            raise node.refuse(f"a pad of {max(pad)} around {size} elements")
    more = 4 - len(wanted)
    fields = {
        "shape": [1] * more + list(output.shape),
        "source": [1] * more + list(source.shape),
        "before": [0] * more + [before for before, _ in around],
        "stride": [0] * more + list(contiguous(source.shape)),
        "edge": edge,
    }
    return [Step("mirror_pad", fields, (source,), output, about(node, source))]


OPERATORS = {"MIRROR_PAD": lower}
