"""CONV_2D: also grouped, dilated, and with the padding of a PAD before it."""

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
from edgekd.firmware.windows import window


def lower(node: Node) -> list[Step]:
    """One call; filter (outputs, height, width, inputs of a group)."""
    source, output = node.computed(0), node.output
    shape = node.constant(1, "int8").shape
    if len(source.shape) != 4 or len(output.shape) != 4 or len(shape) != 4:
        raise node.refuse("its tensors do not have four dimensions")
    channels, height, width, group_inputs = shape
    inputs = source.shape[3]
    groups = inputs // group_inputs
    fits = inputs % group_inputs == 0 and channels % groups == 0
    if not fits or output.shape[3] != channels or output.shape[0] != source.shape[0]:
        raise node.refuse(f"a filter of shape {shape} for {source.shape} -> {output.shape}")
    weights, bias = weights_of(node, 0, channels), bias_of(node, channels)
    assert weights.values is not None
    check_sums(node, source, weights.values.reshape(channels, -1), bias)
    dilation_y, dilation_x = node.option("DilationHFactor"), node.option("DilationWFactor")
    stride_y, pad_top = window(node, "Y", source, output, height, dilation_y)
    stride_x, pad_left = window(node, "X", source, output, width, dilation_x)
    return [
        Step(
            "conv_2d",
            {
                "weights": weights_table(weights),
                "bias": bias_table(node, bias),
                **requantization(node, channel_multipliers(node, source, weights, channels)),
                "batches": source.shape[0],
                "input_height": source.shape[1],
                "input_width": source.shape[2],
                "input_channels": inputs,
                "filter_height": height,
                "filter_width": width,
                "group_inputs": group_inputs,
                "output_height": output.shape[1],
                "output_width": output.shape[2],
                "output_channels": channels,
                "group_outputs": channels // groups,
                "stride_y": stride_y,
                "stride_x": stride_x,
                "dilation_y": dilation_y,
                "dilation_x": dilation_x,
                "pad_top": pad_top,
                "pad_left": pad_left,
                "input_offset": -source.zero_point,
                "output_offset": output.zero_point,
                **limits(node),
            },
            (source,),
            output,
            about(node, source),
            needs=("requantize", "dot"),
        )
    ]


OPERATORS = {"CONV_2D": lower}
