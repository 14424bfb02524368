"""RESHAPE, SQUEEZE and EXPAND_DIMS: the same memory under another shape, without a call."""

from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step, about


def lower(node: Node) -> list[Step]:
    """A step without a kernel: the output is the input."""
    source, output = node.computed(0), node.output
    if source.elements != output.elements or source.grid != output.grid:
        raise node.refuse(f"{source.shape} -> {output.shape}, or scales that differ")
    if source.values is not None:
        raise node.refuse("its input is constant")
    return [Step("", {}, (source,), output, about(node, source))]


OPERATORS = {"RESHAPE": lower, "SQUEEZE": lower, "EXPAND_DIMS": lower}
