"""Multiply-accumulates of a model file, counted from its operators' shapes.

A multiply-accumulate is one product and one sum in a convolution or matrix product; element-wise
operations count as none.
"""

import math
from collections.abc import Sequence

from edgekd.formats.graph import Graph, Op

# TFLite: weights are (out, height, width, in), depthwise (1, height, width, out), dense (out, in).
# ONNX: (out, in / groups, height, width); for a transposed convolution (in, out / groups, ...).
CONVOLUTIONS = {"CONV_2D": 1, "CONV_3D": 1, "Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Operators, with the position of the weights among their inputs."""

TRANSPOSED = {"TRANSPOSE_CONV": (2, 1), "ConvTranspose": (0, 1)}
"""Operators, with the positions of input and weights."""

PRODUCTS = {"FULLY_CONNECTED": 0, "BATCH_MATMUL": 0, "MatMul": 0, "Gemm": 0, "MatMulInteger": 0,
            "QLinearMatMul": 0}  # fmt: skip
"""Operators, with the position of the left factor."""

RECURRENT = ("LSTM", "GRU", "RNN")
"""ONNX's layers over a sequence (T, B, I) with weights (directions, gates * H, I) and (..., H)."""

LOOPS = ("UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE", "Loop", "Scan", "If")


def count_macs(graph: Graph) -> tuple[int | None, str]:
    """Multiply-accumulates of one inference, or None with the reason. An open first dimension
    counts as one."""
    total = 0
    for op in graph.ops:
        if op.op in LOOPS:
            return None, f"{op.op} '{op.name}': the number of loop iterations is unknown"
        counted = operator_macs(graph, op)
        if counted is None:
            return None, f"the file does not give the shapes of {op.op} '{op.name}'"
        total += counted
    return total, ""


def operator_macs(graph: Graph, op: Op) -> int | None:
    """Multiply-accumulates of one operator, None if the file does not give its shapes."""
    if op.op in CONVOLUTIONS:
        output, weights = (
            _shape(graph, op.outputs, 0),
            _shape(graph, op.inputs, CONVOLUTIONS[op.op]),
        )
        return _times(output, weights[1:] if weights else None)
    if op.op == "DEPTHWISE_CONV_2D":
        output, weights = _shape(graph, op.outputs, 0), _shape(graph, op.inputs, 1)
        return _times(output, weights[1:3] if weights else None)
    if op.op in TRANSPOSED:
        source, where = TRANSPOSED[op.op]
        given, weights = _shape(graph, op.inputs, source), _shape(graph, op.inputs, where)
        if op.op == "TRANSPOSE_CONV":  # (out, height, width, in): the input's depth is counted once
            return _times(given, weights[:3] if weights else None)
        return _times(given, weights[1:] if weights else None)
    if op.op in RECURRENT:
        x, inputs, hidden = (_shape(graph, op.inputs, place) for place in range(3))
        if x is None or inputs is None or hidden is None or x[0] < 0:
            return None
        return x[0] * max(1, x[1]) * (math.prod(inputs) + math.prod(hidden))
    if op.op in PRODUCTS:
        left = _shape(graph, op.inputs, PRODUCTS[op.op])
        output = _shape(graph, op.outputs, 0)
        if left is None or output is None:
            return None
        if op.op == "FULLY_CONNECTED":
            weights = _shape(graph, op.inputs, 1)
            return _times(output, weights[-1:] if weights else None)
        turned = op.op == "Gemm" and op.attributes.get("transA") == 1
        turned = turned or (op.op == "BATCH_MATMUL" and bool(op.attributes.get("adj_x")))
        return _times(output, left[-2:-1] if turned else left[-1:])
    return 0


def _shape(graph: Graph, keys: Sequence[str], position: int) -> tuple[int, ...] | None:
    """The shape of one of an operator's tensors, None if the file does not give it."""
    tensor = graph.tensors.get(keys[position]) if position < len(keys) else None
    if tensor is None or tensor.shape is None:
        return None
    shape = tensor.shape
    return (1, *shape[1:]) if shape[:1] == (-1,) else shape


def _times(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> int | None:
    if first is None or second is None or min((*first, *second), default=1) < 0:
        return None
    return math.prod(first) * math.prod(second)
