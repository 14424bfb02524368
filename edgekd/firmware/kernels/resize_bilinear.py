"""RESIZE_BILINEAR in TFLite's integers: places in steps of 1/1024 of a pixel."""

from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step, about

MOST = 1 << 20
"""Pixels in a row or column: places in 1/1024 of them have to fit into 32 bits."""


def lower(node: Node) -> list[Step]:
    """One call on (batches, height, width, channels)."""
    source, output = node.computed(0), node.output
    if len(source.shape) != 4 or len(output.shape) != 4 or source.grid != output.grid:
        raise node.refuse(f"{source.shape} -> {output.shape}, or scales that differ")
    batches, height, width, channels = source.shape
    if (batches, channels) != (output.shape[0], output.shape[3]):
        raise node.refuse(f"{source.shape} -> {output.shape}")
    if max(source.shape[1:3] + output.shape[1:3]) >= MOST:
        raise node.refuse(f"more than {MOST} pixels in a row or column")
    aligned = bool(node.options.get("AlignCorners", False))
    fields = {
        "batches": batches,
        "height": height,
        "width": width,
        "channels": channels,
        "out_height": output.shape[1],
        "out_width": output.shape[2],
        "row_step": _step(height, output.shape[1], aligned),
        "column_step": _step(width, output.shape[2], aligned),
        "half_pixel": int(bool(node.options.get("HalfPixelCenters", False))),
    }
    return [Step("resize_bilinear", fields, (source,), output, about(node, source))]


def _step(size: int, wanted: int, aligned: bool) -> int:
    """From one output pixel to the next, in 1/1024 of a source pixel, rounded as in TFLite."""
    if aligned and wanted > 1:
        return (1024 * (size - 1) + (wanted - 1) // 2) // (wanted - 1)
    return (1024 * size + wanted // 2) // wanted


OPERATORS = {"RESIZE_BILINEAR": lower}
