"""DIV, with broadcasting, by reciprocals in gemmlowp's fixed point."""

from typing import Any

import numpy as np

from edgekd.firmware.accumulator import limits
from edgekd.firmware.graph import Node
from edgekd.firmware.pairs import NEEDS, in_place_of, pairs
from edgekd.firmware.quantization import INT32_MAX, high_multiply, quantize_multiplier
from edgekd.firmware.step import Step, about, list_table

# 48/17 and -32/17 in Q2.29, and one: gemmlowp's fixedpoint.h.
_FIRST, _SLOPE, _ONE = 1515870810, -1010580540, 1 << 29


def lower(node: Node) -> list[Step]:
    """One call; TFLite computes the rescaling in float32."""
    a, b, output = node.computed(0), node.computed(1), node.output
    real = np.float32(a.scale) / (np.float32(b.scale) * np.float32(output.scale))
    multiplier, shift = quantize_multiplier(float(real))
    reciprocals = [reciprocal(abs(value - b.zero_point) or 1) for value in range(-128, 128)]
    fields: dict[str, Any] = {
        **pairs(a, b, output),
        "inverse": list_table([one for one, _ in reciprocals], "int32", node, "inverse"),
        "bits": list_table([bits for _, bits in reciprocals], "int8", node, "bits"),
        "a_offset": -a.zero_point,
        "b_offset": -b.zero_point,
        "multiplier": multiplier,
        "shift": shift,
        "output_offset": output.zero_point,
        **limits(node),
    }
    places, needs = in_place_of(a, b, output), ("requantize", *NEEDS)
    return [Step("divide", fields, (a, b), output, about(node, a, b), places, needs)]


def reciprocal(x: int) -> tuple[int, int]:
    """1 / x as (inverse, bits): inverse / 2^(31 + bits), by three steps of Newton's method."""
    bits = x.bit_length() - 1
    fraction = (x << (31 - bits)) - 2**31
    half = (fraction + INT32_MAX + 1) // 2
    found = _FIRST + high_multiply(half, _SLOPE)
    for _ in range(3):
        error = _ONE - high_multiply(half, found)
        found += high_multiply(found, error) << 2
    return min(found << 1, INT32_MAX), bits


OPERATORS = {"DIV": lower}
