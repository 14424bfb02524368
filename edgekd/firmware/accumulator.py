"""Weighted sums: multipliers of each output channel, and the check that int32 holds the sums."""

import numpy as np

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.quantization import (
    ACTIVATIONS,
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    activation_range,
    quantize_multipliers,
)
from edgekd.firmware.step import Table, list_table


def weights_of(node: Node, axis: int, channels: int) -> Array:
    """The constant symmetric int8 weights, with one scale, or one per channel along `axis`."""
    node.constant(1, "int8")
    weights = node.inputs[1]
    assert weights is not None
    if weights.zero_point != 0 or not weights.scales:
        raise node.refuse(f"weights with zero point {weights.zero_point}, but only 0 is supported")
    if len(weights.scales) not in (1, channels) or (
        len(weights.scales) > 1 and weights.axis != axis
    ):
        raise node.refuse(f"{len(weights.scales)} scales for {channels} channels")
    return weights


def bias_of(node: Node, channels: int) -> np.ndarray:
    """The int32 bias, zeros if it is left out."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(channels, np.int32)
    bias = node.constant(2, "int32")
    if bias.shape != (channels,):
        raise node.refuse(f"a bias of shape {bias.shape} for {channels} channels")
    return bias


def check_sums(node: Node, source: Array, by_channel: np.ndarray, bias: np.ndarray) -> None:
    """Refuse possible overflow: |bias| plus all |weights| times the largest input, per channel.

    `by_channel` is (channels, weights of one channel).
    """
    farthest = max(INT8_MAX - source.zero_point, source.zero_point - INT8_MIN)
    sums = np.abs(by_channel.astype(np.int64)).sum(axis=1) * farthest
    if (sums + np.abs(bias.astype(np.int64)) > INT32_MAX).any():
        raise node.refuse("its sums do not fit into 32 bits")


def channel_multipliers(node: Node, source: Array, weights: Array, channels: int) -> list[float]:
    """scale_in * scale_w / scale_out of each channel, in double, as TFLite computes them."""
    scales = weights.scales if len(weights.scales) > 1 else weights.scales * channels
    return [source.scale * one / node.output.scale for one in scales]


def shared_multiplier(source: Array, weights: Array, output: Array) -> float:
    """scale_in * scale_w / scale_out; TFLite rounds the product of the two to float32 first."""
    product = float(np.float32(source.scale) * np.float32(weights.scale))
    return product / output.scale


def requantization(node: Node, reals: list[float]) -> dict[str, Table]:
    """The tables of multipliers and shifts."""
    multipliers, shifts = quantize_multipliers(reals)
    return {
        "multiplier": list_table(multipliers, "int32", node, "multiplier"),
        "shift": list_table(shifts, "int8", node, "shift"),
    }


def limits(node: Node) -> dict[str, int]:
    """The clamp of the fused activation, as the fields `low` and `high`."""
    code = node.option("FusedActivationFunction")
    if code not in ACTIVATIONS:
        raise node.refuse(f"the fused activation {code}")
    output = node.output
    low, high = activation_range(ACTIVATIONS[code], output.scale, output.zero_point)
    if low > high:
        raise node.refuse("a fused activation with an empty range")
    return {"low": low, "high": high}


def bias_table(node: Node, bias: np.ndarray) -> Table:
    """The bias as a constant; a missing bias is a row of zeros."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    key = ("tensor", given.index) if given is not None else (node.where, "bias")
    return Table(bias, key)
