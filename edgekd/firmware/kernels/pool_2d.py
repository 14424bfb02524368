"""AVERAGE_POOL_2D and MAX_POOL_2D, on the grid of their input."""

from edgekd.firmware.accumulator import limits
from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step, about
from edgekd.firmware.trailing import ahead_of
from edgekd.firmware.windows import window


def lower(node: Node) -> list[Step]:
    """One call."""
    source, output = node.computed(0), node.output
    if len(source.shape) != 4 or len(output.shape) != 4:
        raise node.refuse("its tensors do not have four dimensions")
    if source.shape[0] != output.shape[0] or source.shape[3] != output.shape[3]:
        raise node.refuse(f"{source.shape} -> {output.shape}")
    if source.grid != output.grid:
        raise node.refuse("input and output have different scales")
    height, width = node.option("FilterHeight"), node.option("FilterWidth")
    stride_y, pad_top = window(node, "Y", source, output, height, 1)
    stride_x, pad_left = window(node, "X", source, output, width, 1)
    fields = {
        "batches": source.shape[0],
        "input_height": source.shape[1],
        "input_width": source.shape[2],
        "channels": source.shape[3],
        "output_height": output.shape[1],
        "output_width": output.shape[2],
        "window_height": height,
        "window_width": width,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "pad_top": pad_top,
        "pad_left": pad_left,
        "maximum": int(node.kind == "MAX_POOL_2D"),
        **limits(node),
    }
    sizes = {**fields, "input_channels": source.shape[3]}
    ahead = ahead_of(sizes, source.shape[3], 1, copied=False)
    needs, text = ("requantize",), about(node, source)
    return [Step("pool_2d", fields, (source,), output, text, needs=needs, ahead=ahead)]


OPERATORS = {"AVERAGE_POOL_2D": lower, "MAX_POOL_2D": lower}
