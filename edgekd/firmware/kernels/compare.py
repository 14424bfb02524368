"""EQUAL, LESS and their like: a mask from two tensors, with broadcasting."""

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.pairs import NEEDS, in_place_of, pairs
from edgekd.firmware.quantization import quantize_multiplier
from edgekd.firmware.step import Step, about

KINDS = {
    "EQUAL": (True, False, False),
    "NOT_EQUAL": (True, False, True),
    "LESS": (False, False, False),
    "GREATER_EQUAL": (False, False, True),
    "GREATER": (False, True, False),
    "LESS_EQUAL": (False, True, True),
}
"""Whether it asks for equality, with exchanged inputs, and for the contrary."""


def lower(node: Node) -> list[Step]:
    """One call."""
    is_equality, is_exchanged, is_negated = KINDS[node.kind]
    a, b, output = node.computed(0), node.computed(1), node.output_mask
    if is_exchanged:
        a, b = b, a
    fields = {
        **pairs(a, b, output),
        **_rescaling(node, "a", a),
        **_rescaling(node, "b", b),
        "equal": int(is_equality),
        "negated": int(is_negated),
    }
    places, needs = in_place_of(a, b, output), ("requantize", *NEEDS)
    return [Step("compare", fields, (a, b), output, about(node, a, b), places, needs)]


def _rescaling(node: Node, name: str, array: Array) -> dict[str, int]:
    """TFLite multiplies by the scale itself, which has to be below one."""
    if array.scale >= 1:
        raise node.refuse(f"an input of scale {array.scale:g}, but only less than 1 is supported")
    multiplier, shift = quantize_multiplier(array.scale)
    return {
        f"{name}_offset": -array.zero_point,
        f"{name}_multiplier": multiplier,
        f"{name}_shift": shift,
    }


OPERATORS = dict.fromkeys(KINDS, lower)
