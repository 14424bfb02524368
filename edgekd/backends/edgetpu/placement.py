"""Predicts what the Edge TPU's compiler will map of an int8 TFLite file, by the vendor's table.

Source: Coral, "TensorFlow models on the Edge TPU", sections "Model requirements" and "Supported
operations" (coral.ai/docs/edgetpu/models-intro), and, word for word the same up to the resizing
operators, Axis, "ARTPEC-7 supported ops" (developer.axis.com). The rows from Rsqrt on are
unverified against the page.

Without `-a` the compiler makes one subgraph: the first unbroken run of operators that it can map.
What comes before runs on the CPU, and so does all that comes after ("More than one subgraph is not
supported"); google-coral/edgetpu issues 342 and 461 show both in the compiler's own words.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgekd.formats.graph import Graph, Op, Tensor
from edgekd.formats.operator_notes import shown_name
from edgekd.values.artifact import OpPlacement

Condition = Callable[[Op, Graph], str]
"""Why the operator can't be mapped, or an empty string."""

COMPILED = "CUSTOM edgetpu-custom-op"  # what the compiler puts in place of all that it mapped
SOFTMAX_ELEMENTS = 16_000
TAKEN_BY_PARAMETERS = ("int8", "uint8", "int16", "int32")


def _inputs(op: Op, graph: Graph) -> list[Tensor]:
    return [graph.tensors[key] for key in op.inputs if key]


def _output(op: Op, graph: Graph) -> Tensor:
    return graph.tensors[op.outputs[0]]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tensor.shape or ()


def _constant(op: Op, graph: Graph, position: int) -> list[int] | None:
    """The numbers of a constant input such as axes or paddings, None if they are computed."""
    if position >= len(op.inputs) or not op.inputs[position]:
        return None
    values = graph.tensors[op.inputs[position]].values
    return None if values is None else [int(value) for value in values.ravel()]


def whole(op: Op, graph: Graph) -> str:
    """It has an input and an output; only damaged and control-flow operators have none."""
    return "" if any(op.inputs) and op.outputs and op.outputs[0] else "no input or no output"


def eight_bits(op: Op, graph: Graph) -> str:
    """Every tensor is quantized to 8 bits; biases and axes may be 32-bit constants."""
    for key in (*op.inputs, *op.outputs):
        if not key:
            continue
        tensor = graph.tensors[key]
        if tensor.dtype in ("int8", "uint8"):
            continue
        if tensor.dtype == "int32" and tensor.constant_bytes:
            continue
        return f"tensor '{tensor.name}' is {tensor.dtype}; the Edge TPU computes in 8 bits"
    return ""


def constant_sizes(op: Op, graph: Graph) -> str:
    """Tensor sizes are known at compile time."""
    for key in (*op.inputs, *op.outputs):
        if key and any(size < 0 for size in _shape(graph.tensors[key])):
            return f"tensor '{graph.tensors[key].name}' has an open dimension"
    return ""


def three_dimensions(op: Op, graph: Graph) -> str:
    """Only the innermost three dimensions of an activation may be above 1."""
    for key in (*op.inputs, *op.outputs):
        if not key or graph.tensors[key].constant_bytes:
            continue
        shape = _shape(graph.tensors[key])
        if any(size > 1 for size in shape[:-3]):
            return f"tensor '{graph.tensors[key].name}' has {_dims(shape)}: a batch above 1"
    return ""


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "no dimension"


def constant_parameters(op: Op, graph: Graph) -> str:
    """Weights and biases are constants."""
    first = 0 if op.op == "TRANSPOSE_CONV" else 1
    parameters = [key for index, key in enumerate(op.inputs) if index >= first and key]
    if op.op == "TRANSPOSE_CONV":
        parameters = [key for index, key in enumerate(op.inputs) if index in (0, 1, 3) and key]
    for key in parameters:
        if not graph.tensors[key].constant_bytes:
            return f"parameter '{graph.tensors[key].name}' is not a constant"
    return ""


def no_activation(op: Op, graph: Graph) -> str:
    """No fused activation function."""
    return "a fused activation" if op.attributes.get("FusedActivationFunction", 0) else ""


def zero_padding_only(op: Op, graph: Graph) -> str:
    """A constant input only as one of two and all zeros, which is padding in disguise."""
    constants = [tensor for tensor in _inputs(op, graph) if tensor.constant_bytes]
    if not constants:
        return ""
    if len(op.inputs) != 2:
        return "a constant among more than two inputs"
    zero = [tensor.zero_points[0] if tensor.zero_points else 0 for tensor in constants]
    same = all(
        tensor.values is not None and bool(np.all(tensor.values == value))
        for tensor, value in zip(constants, zero, strict=True)
    )
    return "" if same else "a constant input that is not all zeros"


def equal_dilation(op: Op, graph: Graph) -> str:
    """The same dilation in x and y."""
    height = op.attributes.get("DilationHFactor", 1)
    width = op.attributes.get("DilationWFactor", 1)
    return "" if height == width else f"dilations {height} and {width} differ"


def default_weights(op: Op, graph: Graph) -> str:
    """Only the default format of fully-connected weights."""
    return "weights in a shuffled format" if op.attributes.get("WeightsFormat", 0) else ""


def flat_output(op: Op, graph: Graph) -> str:
    """The output is one-dimensional: only its innermost dimension is above 1."""
    shape = _shape(_output(op, graph))
    return f"the output has {_dims(shape)}" if any(size > 1 for size in shape[:-1]) else ""


def mean_axes(op: Op, graph: Graph) -> str:
    """No reduction over the batch, and over the depth only if it is a multiple of 4."""
    axes, rank, shape = _axes(op, graph)
    if axes is None:
        return "its axes are not constant"
    if rank > 3 and 0 in axes:
        return "reduction over the batch dimension"
    if rank - 1 in axes and shape[-1] % 4:
        return f"reduction over a depth of {shape[-1]}, which is not a multiple of 4"
    return ""


def axes_without_batch(op: Op, graph: Graph) -> str:
    """No reduction over the batch dimension."""
    axes, rank, _ = _axes(op, graph)
    if axes is None:
        return "its axes are not constant"
    return "reduction over the batch dimension" if rank > 3 and 0 in axes else ""


def _axes(op: Op, graph: Graph) -> tuple[set[int] | None, int, tuple[int, ...]]:
    shape = _shape(_inputs(op, graph)[0])
    axes = _constant(op, graph, 1)
    axis_set = None if axes is None else {axis % max(len(shape), 1) for axis in axes}
    return axis_set, len(shape), shape


def pack_without_batch(op: Op, graph: Graph) -> str:
    """No packing along the batch dimension."""
    rank = len(_shape(_output(op, graph)))
    axis = int(op.attributes.get("Axis", 0)) % max(rank, 1)
    return "packing along the batch dimension" if rank > 3 and axis == 0 else ""


def split_without_batch(op: Op, graph: Graph) -> str:
    """No splitting along the batch dimension. The axis is SPLIT's first input."""
    axis = _constant(op, graph, 0)
    rank = len(_shape(_output(op, graph)))
    if not axis:
        return "its axis is not a constant"
    return "splitting along the batch dimension" if rank > 3 and axis[0] % rank == 0 else ""


def pad_without_batch(op: Op, graph: Graph) -> str:
    """No padding of the batch dimension."""
    paddings = _constant(op, graph, 1)
    rank = len(_shape(_inputs(op, graph)[0]))
    if paddings is None:
        return "its paddings are not constant"
    return "padding of the batch dimension" if rank > 3 and any(paddings[:2]) else ""


def flat_alpha(op: Op, graph: Graph) -> str:
    """PReLU's alpha is one-dimensional."""
    shape = _shape(_inputs(op, graph)[-1])
    return f"alpha has {_dims(shape)}" if any(size > 1 for size in shape[:-1]) else ""


def flat_input(op: Op, graph: Graph) -> str:
    """Softmax takes one dimension of at most 16,000 elements."""
    shape = _shape(_inputs(op, graph)[0])
    if any(size > 1 for size in shape[:-1]):
        return f"the input has {_dims(shape)}"
    if shape and shape[-1] > SOFTMAX_ELEMENTS:
        return f"{shape[-1]} elements, above {SOFTMAX_ELEMENTS}"
    return ""


def leading_ones(op: Op, graph: Graph) -> str:
    """Only leading dimensions are squeezed, so that nothing moves in memory."""
    source, result = _shape(_inputs(op, graph)[0]), _shape(_output(op, graph))
    kept = source[len(source) - len(result) :] if result else ()
    return "" if kept == result else f"{_dims(source)} to {_dims(result)} drops an inner dimension"


def unit_strides(op: Op, graph: Graph) -> str:
    """Strides of 1, no ellipsis and no new axis."""
    strides = _constant(op, graph, 3)
    if strides is None:
        return "its strides are not constant"
    if any(stride != 1 for stride in strides):
        return "a stride other than 1"
    masks = ("EllipsisMask", "NewAxisMask")
    return "an ellipsis or a new axis" if any(op.attributes.get(one, 0) for one in masks) else ""


EVERY_OP: tuple[Condition, ...] = (whole, constant_sizes, eight_bits, three_dimensions)

SUPPORTED: Mapping[str, tuple[Condition, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (no_activation,),
    "CONCATENATION": (no_activation, zero_padding_only),
    "CONV_2D": (equal_dilation, constant_parameters),
    "DEPTHWISE_CONV_2D": (equal_dilation, constant_parameters),
    "EXPAND_DIMS": (),
    "FULLY_CONNECTED": (default_weights, flat_output, constant_parameters),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (),
    "MAXIMUM": (),
    "MAX_POOL_2D": (no_activation,),
    "MEAN": (mean_axes,),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (pack_without_batch,),
    "PAD": (pad_without_batch,),
    "PRELU": (flat_alpha,),
    "QUANTIZE": (),
    "REDUCE_MAX": (axes_without_batch,),
    "REDUCE_MIN": (axes_without_batch,),
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (),
    "RESIZE_BILINEAR": (),
    "RESIZE_NEAREST_NEIGHBOR": (),
    "RSQRT": (),
    "SLICE": (),
    "SOFTMAX": (flat_input,),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (split_without_batch,),
    "SQUEEZE": (leading_ones,),
    "STRIDED_SLICE": (unit_strides,),
    "SUB": (),
    "SUM": (axes_without_batch,),
    "SQUARED_DIFFERENCE": (),
    "TANH": (),
    "TRANSPOSE": (),
    "TRANSPOSE_CONV": (constant_parameters,),
}

_LARGE = "the compiler may leave it on the CPU if its tensors are large"
MAY_STAY: Mapping[str, str] = {
    "RESHAPE": _LARGE,
    "RESIZE_BILINEAR": _LARGE,
    "RESIZE_NEAREST_NEIGHBOR": _LARGE,
    # google-coral/edgetpu issue 342 (compiler 15): "TRANSPOSE 70 Operation not supported"
    "TRANSPOSE": "compilers before version 16 leave it on the CPU",
}
SECOND_SUBGRAPH = "more than one subgraph is not supported; the first one ends before"


def reason_against(op: Op, graph: Graph) -> str:
    """Why the Edge TPU can't run that operator, or an empty string."""
    if op.op == COMPILED:
        return ""
    if op.op not in SUPPORTED:
        return "operation not supported"
    for condition in (*EVERY_OP, *SUPPORTED[op.op]):
        reason = condition(op, graph)
        if reason:
            return reason
    return ""


def edgetpu_placements(
    graph: Graph, on_chip_bytes: int, reserve_bytes: int
) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
    """Where each operator of a TFLite file will run, and how its parameters fit on the chip.

    `reserve_bytes` is what the compiler takes of `on_chip_bytes` for its own code and activations.
    All of it is an estimate: the compiler's log alone says how much it really caches.
    """
    reasons = [reason_against(op, graph) for op in graph.ops]
    begin = next((index for index, reason in enumerate(reasons) if not reason), len(reasons))
    end = next(
        (index for index in range(begin, len(reasons)) if reasons[index]),
        len(reasons),
    )
    placements = tuple(
        _placement(op, index, reasons, begin, end, graph) for index, op in enumerate(graph.ops)
    )
    parameters = _parameter_bytes(graph, graph.ops[begin:end])
    cache = max(on_chip_bytes - reserve_bytes, 0)
    return placements, {
        "kind": "estimated",
        "edgetpu_ops": end - begin,
        "cpu_ops": len(graph.ops) - (end - begin),
        "parameter_bytes": parameters,
        "cached_bytes": min(parameters, cache),
        "streamed_bytes": max(parameters - cache, 0),
    }


def _placement(
    op: Op, index: int, reasons: list[str], begin: int, end: int, graph: Graph
) -> OpPlacement:
    if begin <= index < end:
        doubt = MAY_STAY.get(op.op, "")
        return OpPlacement(name=shown_name(op.name), op=op.op, placement="edgetpu", reason=doubt)
    reason = reasons[index]
    if not reason:
        first = graph.ops[end]
        reason = f"{SECOND_SUBGRAPH} {first.op} '{shown_name(first.name)}'"
    return OpPlacement(name=shown_name(op.name), op=op.op, placement="cpu", reason=reason)


def _parameter_bytes(graph: Graph, ops: tuple[Op, ...]) -> int:
    """Bytes of the constants that those operators use, each counted once."""
    keys = {key for op in ops for key in op.inputs if key}
    sizes: list[Any] = [
        graph.tensors[key].constant_bytes or 0
        for key in keys
        if graph.tensors[key].dtype in TAKEN_BY_PARAMETERS
    ]
    return sum(sizes)
