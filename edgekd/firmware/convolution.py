"""The common part of CONV_2D and DEPTHWISE_CONV_2D: checks, window, sums and parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd.firmware.accumulator import (
    bias_of,
    bias_table,
    channel_multipliers,
    check_sums,
    limits,
    requantization,
    weights_of,
)
from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step, about, weights_table
from edgekd.firmware.trailing import ahead_of
from edgekd.firmware.windows import window


def filter_shape(node: Node) -> tuple[int, int, int, int]:
    """The four dimensions of the filter; the second is its height, the third its width."""
    source, output = node.computed(0), node.output
    shape = node.constant(1, "int8").shape
    if not len(source.shape) == len(output.shape) == len(shape) == 4:
        raise node.refuse("its tensors do not have four dimensions")
    first, height, width, last = shape
    return first, height, width, last


def check_filter(node: Node, channels: int, fits: bool) -> None:
    """Refuse a filter that does not fit its input, or an output of the wrong size."""
    source, output, shape = node.computed(0), node.output, filter_shape(node)
    if not fits or output.shape[3] != channels or output.shape[0] != source.shape[0]:
        raise node.refuse(f"a filter of shape {shape} for {source.shape} -> {output.shape}")


def convolution(
    node: Node,
    kernel: str,
    axis: int,
    of_filter: Mapping[str, int],
    of_output: Mapping[str, int],
    needs: tuple[str, ...],
) -> Step:
    """One call of a kernel whose filter has its outputs along `axis`.

    Parameters that only this kernel has come after those of the filter and the output.
    """
    source, output, shape = node.computed(0), node.output, filter_shape(node)
    _, height, width, _ = shape
    channels = shape[axis]
    weights, bias = weights_of(node, axis, channels), bias_of(node, channels)
    assert weights.values is not None
    check_sums(node, source, np.moveaxis(weights.values, axis, 0).reshape(channels, -1), bias)
    dilation_y, dilation_x = node.option("DilationHFactor"), node.option("DilationWFactor")
    stride_y, pad_top = window(node, "Y", source, output, height, dilation_y)
    stride_x, pad_left = window(node, "X", source, output, width, dilation_x)
    parameters: dict[str, Any] = {
        "weights": weights_table(weights),
        "bias": bias_table(node, bias),
        **requantization(node, channel_multipliers(node, source, weights, channels)),
        "batches": source.shape[0],
        "input_height": source.shape[1],
        "input_width": source.shape[2],
        "input_channels": source.shape[3],
        "filter_height": height,
        "filter_width": width,
        **of_filter,
        "output_height": output.shape[1],
        "output_width": output.shape[2],
        "output_channels": channels,
        **of_output,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "dilation_y": dilation_y,
        "dilation_x": dilation_x,
        "pad_top": pad_top,
        "pad_left": pad_left,
        "input_offset": -source.zero_point,
        "output_offset": output.zero_point,
        **limits(node),
    }
    ahead = ahead_of(parameters, channels, 1, copied=False)
    return Step(
        kernel, parameters, (source,), output, about(node, source), needs=needs, ahead=ahead
    )
