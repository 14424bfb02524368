"""LOGICAL_AND, LOGICAL_OR and LOGICAL_NOT of masks, with broadcasting."""

from typing import Any

from edgekd.firmware.graph import Node
from edgekd.firmware.pairs import NEEDS, in_place_of, pairs
from edgekd.firmware.step import Step, about

KINDS = {"LOGICAL_AND": 0, "LOGICAL_OR": 1, "LOGICAL_NOT": 2}


def lower(node: Node) -> list[Step]:
    """One call; NOT reads its only input twice."""
    a = node.mask(0)
    b, output = a if node.kind == "LOGICAL_NOT" else node.mask(1), node.output_mask
    fields: dict[str, Any] = {**pairs(a, b, output), "kind": KINDS[node.kind]}
    places = in_place_of(a, b, output)
    return [Step("logical", fields, (a, b), output, about(node, a, b), places, NEEDS)]


OPERATORS = dict.fromkeys(KINDS, lower)
