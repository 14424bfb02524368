"""SOFTMAX over the last dimension, in gemmlowp's fixed point, with a table of exponentials."""

import math

from edgekd.firmware.graph import Node
from edgekd.firmware.quantization import INT32_MAX, high_multiply, rounding_shift
from edgekd.firmware.step import Step, about, list_table

MAX_DEPTH = 4095

# exp(-2^k) for k = -2 .. 4 in Q0.31, and exp(-1/8), 1/3: gemmlowp's fixedpoint.h.
_BARREL = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_EXP_EIGHTH, _THIRD = 1895147668, 715827883


def lower(node: Node) -> list[Step]:
    """One call; the output's grid is always 1/256 from -128 on."""
    source, output = node.computed(0), node.output
    if source.shape != output.shape or not source.shape:
        raise node.refuse(f"{source.shape} -> {output.shape}")
    if output.zero_point != -128 or abs(output.scale - 1 / 256) > 1e-3 / 256:
        raise node.refuse("an output whose scale is not 1/256 or whose zero point is not -128")
    depth = source.shape[-1]
    if depth > MAX_DEPTH:
        raise node.refuse(f"{depth} values, but at most {MAX_DEPTH} are supported")
    table = exponentials(float(node.option("Beta")) * source.scale)
    return [
        Step(
            "softmax",
            {
                "exponentials": list_table(table, "int32", node, "exponentials"),
                "rows": source.elements // depth,
                "depth": depth,
            },
            (source,),
            output,
            about(node, source),
            in_place=(0,),
            needs=("requantize",),
        )
    ]


def exponentials(step: float) -> list[int]:
    """exp(-d * step) for d = 0 .. 255 in Q0.31; 0 beyond the differences that TFLite considers."""
    real = min(step * 2**26, 2**31 - 1.0)
    if not real > 1:
        raise ValueError(f"a scale of {step:g}")
    fraction, left = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, left = multiplier // 2, left + 1
    radius = math.floor(31 * 2**26 / 2**left)
    return [
        exp_of_negative(high_multiply(-d * 2**left, multiplier)) if d <= radius else 0
        for d in range(256)
    ]


def exp_of_negative(a: int) -> int:
    """gemmlowp's exp_on_negative_values: `a` in Q5.26, the result in Q0.31."""
    if a == 0:
        return INT32_MAX
    quarter = 1 << 24
    part = (a & (quarter - 1)) - quarter
    result = _exp_of_part(part << 5)
    remainder = part - a
    for place, multiplier in enumerate(_BARREL, start=24):
        if remainder & (1 << place):
            result = high_multiply(result, multiplier)
    return result


def _exp_of_part(a: int) -> int:
    """exp on [-1/4, 0) in Q0.31: a fourth-order Taylor series around -1/8."""
    x = a + (1 << 28)
    x2 = high_multiply(x, x)
    x3, x4 = high_multiply(x2, x), high_multiply(x2, x2)
    higher = high_multiply(rounding_shift(x4, 2) + x3, _THIRD) + x2
    return _EXP_EIGHTH + high_multiply(_EXP_EIGHTH, x + rounding_shift(higher, 1))


OPERATORS = {"SOFTMAX": lower}
