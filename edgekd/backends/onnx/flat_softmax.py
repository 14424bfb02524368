"""Keeps ONNX Runtime from computing a softmax of many nearly equal values in integers.

Its kernel, QLinearSoftmax, overflows where the step of its result is far below the mean of what it
computes, 1 / L over L values: in 1.31 from about 1 / (185 L) on, the result is 0. That is the
softmax of an attention that prefers nothing, whose largest value is next to the mean.
"""

from typing import Any

FINEST = 1 / 128
"""The finest step, as a share of the mean, for which the kernel is used."""

ASSUMED = 8
"""The length of a dimension that the file leaves open."""


def part_flat_softmaxes(model: Any) -> None:
    """Put an operator that changes no positive value, Abs, between each such softmax and what
    quantizes it: then it is computed in float."""
    from onnx import helper, numpy_helper, shape_inference

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    softmaxes = {node.output[0]: node for node in graph.node if node.op_type == "Softmax"}
    quantizing = [
        node
        for node in graph.node
        if node.op_type == "QuantizeLinear"
        and node.input[0] in softmaxes
        and node.input[1] in constants
    ]
    if not quantizing:
        return
    try:
        known = shape_inference.infer_shapes(model).graph
    except ValueError:  # beyond the 2 GB of a protobuf message
        known = graph
    for node in quantizing:
        step = float(numpy_helper.to_array(constants[node.input[1]]).max())
        if step * _length(known, softmaxes[node.input[0]]) < FINEST:
            name = f"{node.input[0]}.in_float.{node.output[0]}"
            place = list(graph.node).index(node)
            graph.node.insert(place, helper.make_node("Abs", [node.input[0]], [name], name))
            node.input[0] = name


def _length(graph: Any, softmax: Any) -> int:
    """Over how many values the softmax runs."""
    axis = next((each.i for each in softmax.attribute if each.name == "axis"), -1)
    for value in (*graph.value_info, *graph.output):
        if value.name == softmax.output[0]:
            sizes = value.type.tensor_type.shape.dim
            if -len(sizes) <= axis < len(sizes) and sizes[axis].dim_value:
                return int(sizes[axis].dim_value)
    return ASSUMED
