"""DEPTHWISE_CONV_2D, with any depth multiplier and the padding of a PAD before it."""

from edgekd.firmware.convolution import check_filter, convolution, filter_shape
from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step


def lower(node: Node) -> list[Step]:
    """One call; filter (1, height, width, outputs)."""
    one, _, _, channels = filter_shape(node)
    inputs = node.computed(0).shape[3]
    depth = channels // inputs
    check_filter(node, channels, one == 1 and channels == inputs * depth and depth > 0)
    return [convolution(node, "depthwise_conv_2d", 3, {}, {"depth": depth}, ("requantize",))]


OPERATORS = {"DEPTHWISE_CONV_2D": lower}
