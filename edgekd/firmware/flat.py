"""ADD and SUB of two tensors of one shape, without branches."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgekd.firmware.quantization import INT32_MAX
from edgekd.firmware.step import Step

HALF = 1 << 30
"""The multiplier of one half with no shift, which `quantize_multiplier` gives for the input of the
larger scale."""


def as_flat(step: Step, needs: tuple[str, ...]) -> Step:
    """The same step as `add_flat` if nothing is broadcast, and if its numbers allow."""
    values = step.parameters
    if step.kernel != "add":
        return step
    flat = [1, 1, 1, values["pairs.shape"][3]]
    steps = values["pairs.a_stride"][3], values["pairs.b_stride"][3]
    if values["pairs.shape"] != flat or steps != (1, 1):
        return step
    a, b = _input(values, "a"), _input(values, "b")
    if not a or not b or values["output_shift"] > -1 or _overflows(values):
        return step
    parameters = {
        "count": flat[3],
        **a,
        **b,
        "sign": values["sign"],
        "output_offset": values["output_offset"],
        "output_multiplier": values["output_multiplier"],
        "output_shift": -values["output_shift"],
        "low": values["low"],
        "high": values["high"],
    }
    return replace(step, kernel="add_flat", parameters=parameters, needs=needs)


def _input(values: Mapping[str, Any], name: str) -> dict[str, int]:
    """How an input is rescaled: shifted left, multiplied, shifted right by at least one; nothing if
    there is no such way.

    One half is 2^30 / 2^31 without a right shift. It is exact for values with 20 more bits, so one
    bit more on either side gives the same.
    """
    multiplier, right = values[f"{name}_multiplier"], -values[f"{name}_shift"]
    left = 20
    if right == 0 and multiplier == HALF:
        left, right = left + 1, 1
    if right < 1:
        return {}
    return {
        f"{name}_offset": values[f"{name}_offset"],
        f"{name}_left": left,
        f"{name}_multiplier": multiplier,
        f"{name}_shift": right,
    }


def _overflows(values: Mapping[str, Any]) -> bool:
    """Whether what is added before the output's shift exceeds 32 bits; sums are below 2^29."""
    shift = -values["output_shift"]
    rounding: int = abs(2 * values["output_offset"] + 1) << (shift - 1)
    return (1 << 29) + rounding > INT32_MAX
