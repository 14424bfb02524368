"""Functions of one int8: the generator tabulates TFLite's own arithmetic for all 256 values."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.quantization import (
    activation_range,
    clamped,
    quantize_multiplier,
    rescale,
    round_away,
    rounding_shift,
)
from edgekd.firmware.step import Step, about, list_table, weights_table

Function = Callable[[Node, Array, Array], Callable[[int], int]]


def lowered(make: Function) -> Callable[[Node], list[Step]]:
    """`lower` for an operator that `make` tabulates."""

    def lower(node: Node) -> list[Step]:
        source, output = node.computed(0), node.output
        if source.shape != output.shape:
            raise node.refuse(f"{source.shape} -> {output.shape}")
        value = make(node, source, output)
        table = [value(x) for x in range(-128, 128)]
        fields = {"table": list_table(table, "int8", node, "table"), "count": source.elements}
        return [Step("lookup", fields, (source,), output, about(node, source), in_place=(0,))]

    return lower


def _requantized(node: Node, source: Array, output: Array) -> Callable[[int], int]:
    multiplier, shift = quantize_multiplier(source.scale / output.scale)

    def value(x: int) -> int:
        scaled = rescale(x - source.zero_point, multiplier, shift)
        return clamped(scaled + output.zero_point)

    return value


def _clamp(activation: str) -> Function:
    def make(node: Node, source: Array, output: Array) -> Callable[[int], int]:
        real = float(np.float32(source.scale) / np.float32(output.scale))
        multiplier, shift = quantize_multiplier(real)
        low, high = activation_range(activation, output.scale, output.zero_point)
        if low > high:
            raise node.refuse("an activation with an empty range")

        def value(x: int) -> int:
            scaled = rescale(x - source.zero_point, multiplier, shift)
            return clamped(scaled + output.zero_point, low, high)

        return value

    return make


def _leaky(node: Node, source: Array, output: Array) -> Callable[[int], int]:
    ratio = np.float32(source.scale) / np.float32(output.scale)
    alpha = np.float32(node.option("Alpha"))
    below_real = float(np.float32(source.scale) * alpha / np.float32(output.scale))
    above = quantize_multiplier(float(ratio))
    below = quantize_multiplier(below_real)

    def value(x: int) -> int:
        centred = x - source.zero_point
        scaled = rescale(centred, *(above if centred >= 0 else below))
        return clamped(scaled + output.zero_point)

    return value


def _through_float(function: Callable[[float], float]) -> Function:
    """TFLite tabulates these itself, in float32."""

    def make(node: Node, source: Array, output: Array) -> Callable[[int], int]:
        inverse = np.float32(1.0) / np.float32(output.scale)

        def value(x: int) -> int:
            real = np.float32(source.scale) * np.float32(x - source.zero_point)
            transformed = np.float32(function(float(real)))
            return clamped(round_away(float(transformed * inverse)) + output.zero_point)

        return value

    return make


def _logistic(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(1.0) / (np.float32(1.0) + np.float32(math.exp(min(-x, 700.0)))))


def _elu(x: float) -> float:
    return x if x >= 0 else math.expm1(x)


def _hard_swish(node: Node, source: Array, output: Array) -> Callable[[int], int]:
    """reference/hard_swish.h: 16-bit fixed point throughout."""
    fine = np.float32(1 / 128) * np.float32(source.scale)
    output_q, output_shift = quantize_multiplier(float(fine / np.float32(output.scale)))
    relu_q, relu_shift = quantize_multiplier(float(fine / np.float32(3 / 32768)))
    if output_shift > 0:
        raise node.refuse("its output's scale is too small")
    output_q, relu_q = _halved(output_q), _halved(relu_q)

    def value(x: int) -> int:
        centred = (x - source.zero_point) << 7
        scaled = _high_multiply_16(centred, output_q)
        gate = centred
        if relu_shift > 0:
            gate = _shift_left_16(gate, relu_shift - 1)
        gate = _high_multiply_16(gate, relu_q)
        if relu_shift > 0:
            gate = _shift_left_16(gate, 1)
        elif relu_shift < 0:
            gate = rounding_shift(gate, -relu_shift)
        gate = (gate + 2**15) >> 1
        product = min(int(gate * scaled / 2**15), 32767)
        return clamped(rounding_shift(product, -output_shift) + output.zero_point)

    return value


def _halved(multiplier: int) -> int:
    """A 32-bit multiplier in 16 bits, rounded and saturated."""
    return 32767 if multiplier >= 2**31 - 2**15 else (multiplier + 2**15) >> 16


def _high_multiply_16(a: int, b: int) -> int:
    """gemmlowp's SaturatingRoundingDoublingHighMul of two int16; halves away from zero."""
    product = a * b
    return int((product + (2**14 if product >= 0 else 1 - 2**14)) / 2**15)


def _shift_left_16(x: int, amount: int) -> int:
    return clamped(x << amount, -(2**15), 2**15 - 1)


def _table(node: Node) -> list[Step]:
    """A table that the file has: one for all values, or one for each channel."""
    source, output, values = node.computed(0), node.output, node.computed(2)
    offsets = node.constant(1, "int32")
    channels = offsets.size
    first = np.arange(channels) * 256 + 128
    if values.values is None or values.elements != 256 * channels:
        raise node.refuse(f"a table of {values.elements} values for {channels} channels")
    if source.shape != output.shape or values.grid != output.grid:
        raise node.refuse(f"{source.shape} -> {output.shape}, or scales that differ")
    if not np.array_equal(offsets.reshape(-1), first) or offsets.ndim > len(source.shape):
        raise node.refuse(f"tables that do not begin at {first[:4].tolist()} and so on")
    fields: dict[str, Any] = {"table": weights_table(values)}
    if channels == 1:
        fields["count"] = source.elements
        return [Step("lookup", fields, (source,), output, about(node, source), in_place=(0,))]
    shape = (1,) * (len(source.shape) - offsets.ndim) + offsets.shape
    (axis,) = (place for place, size in enumerate(shape) if size > 1)
    if source.shape[axis] != channels:
        raise node.refuse(f"{channels} tables for {source.shape}")
    fields["outer"] = math.prod(source.shape[:axis])
    fields["channels"], fields["inner"] = channels, math.prod(source.shape[axis + 1 :])
    step = about(node, source)
    return [Step("lookup_channels", fields, (source,), output, step, in_place=(0,))]


def _absolute(node: Node, source: Array, output: Array) -> Callable[[int], int]:
    multiplier, shift = quantize_multiplier(
        float(np.float32(source.scale) / np.float32(output.scale))
    )

    def value(x: int) -> int:
        distance = abs(x - source.zero_point)
        if source.scale != output.scale:
            distance = rescale(distance, multiplier, shift)
        return clamped(distance + output.zero_point)

    return value


def _gelu(node: Node, source: Array, output: Array) -> Callable[[int], int]:
    approximate = bool(node.options.get("Approximate", False))
    return _through_float(_tanh_gelu if approximate else _erf_gelu)(node, source, output)


def _erf_gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x * math.sqrt(0.5)))


def _tanh_gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


OPERATORS = {
    "TABLE": _table,
    "ABS": lowered(_absolute),
    "EXP": lowered(_through_float(lambda x: math.exp(min(x, 80.0)))),
    "GELU": lowered(_gelu),
    "QUANTIZE": lowered(_requantized),
    "RELU": lowered(_clamp("relu")),
    "RELU6": lowered(_clamp("relu6")),
    "RELU_N1_TO_1": lowered(_clamp("relu_n1_to_1")),
    "RELU_0_TO_1": lowered(_clamp("relu_0_to_1")),
    "LEAKY_RELU": lowered(_leaky),
    "LOGISTIC": lowered(_through_float(_logistic)),
    "TANH": lowered(_through_float(math.tanh)),
    "ELU": lowered(_through_float(_elu)),
    "HARD_SWISH": lowered(_hard_swish),
}
