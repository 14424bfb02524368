"""The window of a convolution in a file: its size and steps, and how many of its taps fall into the
image, since kernels leave out those beside it."""

import math
from collections.abc import Mapping, Sequence

from edgekd.formats.graph import Graph, Op
from edgekd.values.tables import Value

CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
"""ONNX's, with weights (out, in / groups, height, width)."""

OF_TFLITE = ("CONV_2D", "DEPTHWISE_CONV_2D")
"""TFLite's, with weights (out, height, width, in) and (1, height, width, out)."""

PADS = ("PAD", "PADV2")
"""TFLite's operators that surround an image, which a convolution behind them may do itself."""

Shape = tuple[int, ...]


class Window(Value):
    """A convolution's kernel area, stride, groups, channels (in, out), positions and rows of the
    output, and the taps within the image, summed over the positions."""

    kernel: int
    stride: int
    groups: int
    channels: int
    filters: int
    positions: int
    rows: int
    taps: int


def window_of(
    graph: Graph, op: Op, weights: Shape, output: Shape, padders: Mapping[str, Op]
) -> Window | None:
    """The window of a convolution with weights and output of these shapes; None for another
    operator. `padders` has the operators that pad, by their outputs."""
    if len(weights) != 4 or len(output) != 4:
        return None
    if op.op in CONVOLUTIONS:
        strides = op.attributes.get("strides", (1, 1))
        dilations = op.attributes.get("dilations", (1, 1))
        image = _shape(graph, op.inputs[0])[2:]
        pads = op.attributes.get("pads", (0, 0, 0, 0))
        sizes, kernel, filters, channels = output[2:], weights[2:], weights[0], weights[1]
        groups = int(op.attributes.get("group", 1))
        before: Sequence[int] = pads[:2]
    elif op.op in OF_TFLITE:
        strides = (op.attributes.get("StrideH", 1), op.attributes.get("StrideW", 1))
        dilations = tuple(op.attributes.get(f"Dilation{side}Factor", 1) for side in "HW")
        deep = op.op == "DEPTHWISE_CONV_2D"
        sizes, kernel = output[1:3], weights[1:3]
        filters, channels = (weights[3], 1) if deep else (weights[0], weights[3])
        depth = (_shape(graph, op.inputs[0]) or (1,))[-1]
        groups = weights[3] if deep else max(1, depth // weights[3])
        pad = padders.get(op.inputs[0])
        image = _shape(graph, pad.inputs[0] if pad else op.inputs[0])[1:3]
        before = [
            max(0, (size - 1) * step + (span - 1) * wide + 1 - there) // 2
            for size, step, span, wide, there in zip(
                sizes, strides, kernel, dilations, image, strict=False
            )
        ]
    else:
        return None
    if len(image) != 2 or len(before) != 2:
        return None
    taps = math.prod(
        _inside(*facts)
        for facts in zip(image, sizes, kernel, strides, dilations, before, strict=True)
    )
    return Window(
        kernel=math.prod(kernel), stride=max(map(int, strides)), groups=groups, channels=channels,
        filters=filters, positions=math.prod(sizes), rows=sizes[0], taps=taps,
    )  # fmt: skip


def padders_of(graph: Graph) -> dict[str, Op]:
    """The operators that pad an image, by their outputs."""
    return {op.outputs[0]: op for op in graph.ops if op.op in PADS}


def _shape(graph: Graph, key: str) -> Shape:
    tensor = graph.tensors.get(key)
    return (tensor.shape or ()) if tensor is not None else ()


def _inside(image: int, outputs: int, kernel: int, stride: int, dilation: int, before: int) -> int:
    """How many taps fall into the image along one side, summed over the outputs."""
    starts = (place * stride - before for place in range(outputs))
    return sum(0 <= start + tap * dilation < image for start in starts for tap in range(kernel))
