"""ADD and SUB, with broadcasting."""

from typing import Any

from edgekd.firmware.accumulator import limits
from edgekd.firmware.graph import Node
from edgekd.firmware.pairs import NEEDS, in_place_of, pairs
from edgekd.firmware.quantization import quantize_multiplier
from edgekd.firmware.step import Step, about

LEFT_SHIFT = 20


def lower(node: Node) -> list[Step]:
    """One call: both inputs are rescaled to twice the larger scale, with 20 more bits."""
    a, b, output = node.computed(0), node.computed(1), node.output
    twice = 2 * max(a.scale, b.scale)
    real = twice / (2**LEFT_SHIFT * output.scale)
    if real >= 1:
        raise node.refuse(f"scales too different: {a.scale:g}, {b.scale:g} -> {output.scale:g}")
    fields: dict[str, Any] = pairs(a, b, output)
    for name, one in (("a", a), ("b", b)):
        multiplier, shift = quantize_multiplier(one.scale / twice)
        fields[f"{name}_offset"] = -one.zero_point
        fields[f"{name}_multiplier"], fields[f"{name}_shift"] = multiplier, shift
    fields["sign"] = -1 if node.kind == "SUB" else 1
    fields["output_offset"] = output.zero_point
    fields["output_multiplier"], fields["output_shift"] = quantize_multiplier(real)
    return [
        Step(
            "add",
            fields | limits(node),
            (a, b),
            output,
            about(node, a, b),
            in_place_of(a, b, output),
            ("requantize", *NEEDS),
        )
    ]


OPERATORS = {"ADD": lower, "SUB": lower}
