"""The integer arithmetic of TFLite's reference kernels, in Python: multipliers, rounding, clamps.

Jacob et al. 2018 (arXiv:1712.05877), section 2.2. Rounding is done as in gemmlowp, twice: once in
the doubling high multiplication, once in the shift.
"""

import math
from collections.abc import Iterable

import numpy as np

INT8_MIN, INT8_MAX = -128, 127
INT32_MAX = 2**31 - 1

ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}
"""TFLite's ActivationFunctionType; the others (tanh, sign bit) are never fused into int8
kernels."""


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(q, shift) with real = q * 2^(shift - 31), q in [2^30, 2^31), or (0, 0) if it underflows.

    Raises `ValueError` unless 0 < real < 2^16, which holds for any reasonable model.
    """
    if not 0 < real < 65536:
        raise ValueError(f"a rescaling by {real:g}")
    fraction, shift = math.frexp(real)
    q = math.floor(fraction * 2**31 + 0.5)
    if q == 2**31:
        q, shift = q // 2, shift + 1
    return (0, 0) if shift < -31 else (q, shift)


def high_multiply(a: int, b: int) -> int:
    """gemmlowp's SaturatingRoundingDoublingHighMul of two int32."""
    if a == b == -(2**31):
        return INT32_MAX
    return (a * b + 2**30) >> 31


def rounding_shift(x: int, exponent: int) -> int:
    """gemmlowp's RoundingDivideByPOT: x / 2^exponent, halves away from zero."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if x & mask > threshold else 0)


def rescale(x: int, multiplier: int, shift: int) -> int:
    """TFLite's MultiplyByQuantizedMultiplier with double rounding."""
    left = wrapped(x << max(shift, 0))
    return rounding_shift(high_multiply(left, multiplier), max(-shift, 0))


def wrapped(x: int) -> int:
    """x wrapped to int32."""
    return (x + 2**31) % 2**32 - 2**31


def clamped(x: int, low: int = INT8_MIN, high: int = INT8_MAX) -> int:
    """The nearest value within the limits."""
    return max(low, min(high, x))


def round_away(x: float) -> int:
    """`std::round`: halves away from zero."""
    return math.floor(x + 0.5) if x >= 0 else math.ceil(x - 0.5)


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """The int8 limits of a fused activation on the output's grid, computed in float32 as in
    TFLite."""

    def on_grid(value: float) -> int:
        return zero_point + round_away(float(np.float32(value) / np.float32(scale)))

    low, high = INT8_MIN, INT8_MAX
    if activation in ("relu", "relu6", "relu_0_to_1"):
        low = max(low, on_grid(0.0))
    if activation == "relu6":
        high = min(high, on_grid(6.0))
    if activation == "relu_0_to_1":
        high = min(high, on_grid(1.0))
    if activation == "relu_n1_to_1":
        low, high = max(low, on_grid(-1.0)), min(high, on_grid(1.0))
    return low, high


def quantize_multipliers(reals: Iterable[float]) -> tuple[list[int], list[int]]:
    """The multipliers and shifts of several channels."""
    pairs = [quantize_multiplier(real) for real in reals]
    return [q for q, _ in pairs], [shift for _, shift in pairs]
