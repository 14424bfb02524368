"""Sliding windows: how TFLite applies padding, stride and dilation along one dimension."""

from edgekd.firmware.graph import Array, Node

VALID = 1
PADDING = {0: "same", VALID: "valid"}
LIMIT = 1 << 15


def window(
    node: Node, axis: str, source: Array, output: Array, taps: int, dilation: int
) -> tuple[int, int]:
    """(stride, padding before) along "Y" (dimension 1) or "X" (dimension 2).

    Raises:
        InputError: a size is out of bounds, or the output does not have the window's size.
    """
    dimension = 1 if axis == "Y" else 2
    size, wanted = source.shape[dimension], output.shape[dimension]
    stride = node.option("StrideH" if axis == "Y" else "StrideW")
    if not (0 < stride <= LIMIT and 0 < dilation <= LIMIT and 0 < taps <= LIMIT):
        raise node.refuse(f"stride {stride}, dilation {dilation}, window {taps}")
    before, behind = node.options.get(f"Pad{axis}", (0, 0))
    extent = (taps - 1) * dilation + 1
    kind = PADDING.get(node.option("Padding"))
    if kind == "same" and not (before or behind):
        length = (size + stride - 1) // stride
        before = max((length - 1) * stride + extent - size, 0) // 2
    elif kind == "valid":
        length = (size + before + behind - extent) // stride + 1
    else:
        raise node.refuse(f"padding {node.option('Padding')}")
    if length != wanted or extent > (1 << 24):
        raise node.refuse(f"its window gives {length} along {axis}, but its output has {wanted}")
    return stride, before
