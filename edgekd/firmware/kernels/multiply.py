"""MUL, with broadcasting."""

import numpy as np

from edgekd.firmware.accumulator import limits
from edgekd.firmware.graph import Node
from edgekd.firmware.pairs import NEEDS, in_place_of, pairs
from edgekd.firmware.quantization import quantize_multiplier
from edgekd.firmware.step import Step, about


def lower(node: Node) -> list[Step]:
    """One call; TFLite computes the rescaling in float32."""
    a, b, output = node.computed(0), node.computed(1), node.output
    real = np.float32(a.scale) * np.float32(b.scale) / np.float32(output.scale)
    multiplier, shift = quantize_multiplier(float(real))
    fields = pairs(a, b, output) | {
        "a_offset": -a.zero_point,
        "b_offset": -b.zero_point,
        "multiplier": multiplier,
        "shift": shift,
        "output_offset": output.zero_point,
        **limits(node),
    }
    places = in_place_of(a, b, output)
    return [
        Step("multiply", fields, (a, b), output, about(node, a, b), places, ("requantize", *NEEDS))
    ]


OPERATORS = {"MUL": lower}
