"""MAXIMUM and MINIMUM of two tensors on one grid, with broadcasting."""

from edgekd.firmware.graph import Node
from edgekd.firmware.pairs import NEEDS, in_place_of, pairs
from edgekd.firmware.step import Step, about


def lower(node: Node) -> list[Step]:
    """One call."""
    a, b, output = node.computed(0), node.computed(1), node.output
    if not a.grid == b.grid == output.grid:
        raise node.refuse("inputs and output have different scales")
    fields = pairs(a, b, output) | {"sign": 1 if node.kind == "MAXIMUM" else -1}
    places = in_place_of(a, b, output)
    return [Step("maximum", fields, (a, b), output, about(node, a, b), places, NEEDS)]


OPERATORS = {"MAXIMUM": lower, "MINIMUM": lower}
