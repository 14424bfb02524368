"""CONV_2D: also grouped, dilated, and with the padding of a PAD before it."""

from edgekd.firmware.convolution import check_filter, convolution, filter_shape
from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step


def lower(node: Node) -> list[Step]:
    """One call; filter (outputs, height, width, inputs of a group)."""
    channels, _, _, group_inputs = filter_shape(node)
    inputs = node.computed(0).shape[3]
    groups = inputs // group_inputs
    check_filter(node, channels, inputs % group_inputs == 0 and channels % groups == 0)
    of_filter = {"group_inputs": group_inputs}
    of_output = {"group_outputs": channels // groups}
    return [convolution(node, "conv_2d", 0, of_filter, of_output, ("requantize", "dot"))]


OPERATORS = {"CONV_2D": lower}
