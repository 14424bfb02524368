"""The layers with weights of a model file, in one layout for every format, and their names.

Weights are floats, (out, in, ...) as in PyTorch: a quantized weight is dequantized. So the same
layer of two files, one float and one quantized or one ONNX and one TFLite, has nearly the same
weight, by which `matched_layers` pairs them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from edgekd.formats.graph import Graph, Op, Tensor
from edgekd.formats.operator_notes import converted_layer, names_layers

SAME_WEIGHT = 0.5
"""Two weights are the same layer's if the norm of their difference is below this share of the
larger norm. Rounding to 4 bits stays below it; independent weights lie near 1.4."""

_ONNX_CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger", "ConvTranspose")
_ONNX_PRODUCTS = ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger")
_TFLITE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_WEIGHT = re.compile(r"^(.+?)[._/](?:weight|kernel|w)(?:[._].*)?$")


@dataclass(frozen=True, eq=False)
class FileLayer:
    """One layer: its operator's place in the file, its name, its weight (out, in, ...) and bias as
    floats, the tensors it reads and writes, and the scale of each output channel's weights."""

    place: int
    op: str
    name: str
    weight: np.ndarray
    bias: np.ndarray | None
    source: str
    output: str
    scales: tuple[float, ...] = ()


def file_layers(graph: Graph) -> list[FileLayer]:
    """The layers whose weights are constants that the file contains, in order of execution."""
    producers = {key: op for op in graph.ops for key in op.outputs if key}
    found = []
    for place, op in enumerate(graph.ops):
        layer = _layer(graph, producers, place, op)
        if layer is not None:
            found.append(layer)
    return found


def operator_layers(graph: Graph) -> list[str]:
    """The layer of each operator, in order, as well as the file's names show it."""
    named = {layer.place: layer.name for layer in file_layers(graph)}
    return [named.get(place) or _name(op) for place, op in enumerate(graph.ops)]


def _layer(graph: Graph, producers: Mapping[str, Op], place: int, op: Op) -> FileLayer | None:
    if op.op in _TFLITE:
        slots = (1, 2, 2) if op.op != "TRANSPOSE_CONV" else (1, 3, 2)
        return _made(graph, producers, place, op, slots)
    if op.op in ("QLinearConv", "QLinearMatMul"):
        return _made(graph, producers, place, op, (3, 8, 0))
    if op.op == "com.microsoft.QGemm":
        return _made(graph, producers, place, op, (3, 6, 0))
    if op.op in _ONNX_CONVOLUTIONS or op.op in _ONNX_PRODUCTS:
        return _made(graph, producers, place, op, (1, 2, 0))
    return None


def _made(
    graph: Graph,
    producers: Mapping[str, Op],
    place: int,
    op: Op,
    slots: tuple[int, int, int],
) -> FileLayer | None:
    at, bias_at, source_at = slots
    if op.op != "TRANSPOSE_CONV":
        source_at = 0
    key = op.inputs[at] if at < len(op.inputs) else ""
    tensor = _constant(graph, producers, key)
    if tensor is None or tensor.values is None or tensor.shape is None:
        return None
    scales = tensor.scales
    if op.op.startswith(("QLinear", "com.microsoft.QGemm")):
        tensor = _with_grid(graph, tensor, op.inputs[4], op.inputs[5])
        scales = tensor.scales
    weight = _oriented(op, dequantized(tensor))
    if weight is None:
        return None
    bias_key = op.inputs[bias_at] if bias_at < len(op.inputs) else ""
    bias = _constant(graph, producers, bias_key)
    return FileLayer(
        place=place,
        op=op.op,
        name=_weighted_name(op, tensor.name),
        weight=weight,
        bias=None if bias is None or bias.values is None else dequantized(bias).reshape(-1),
        source=op.inputs[source_at],
        output=op.outputs[0],
        scales=scales,
    )


def _constant(graph: Graph, producers: Mapping[str, Op], key: str) -> Tensor | None:
    """A constant, also behind operators that change its type or order alone."""
    for _ in range(4):
        tensor = graph.tensors.get(key)
        if tensor is not None and tensor.constant_bytes is not None:
            return tensor
        op = producers.get(key)
        if op is None or op.op not in ("DequantizeLinear", "QuantizeLinear", "Cast", "DEQUANTIZE",
                                       "Identity"):  # fmt: skip
            return None
        key = op.inputs[0]
    return None


def _with_grid(graph: Graph, tensor: Tensor, scale_key: str, zero_key: str) -> Tensor:
    scales, zeros = (graph.tensors.get(key) for key in (scale_key, zero_key))
    if scales is None or scales.values is None:
        return tensor
    points = () if zeros is None or zeros.values is None else zeros.values.reshape(-1)
    count, shape = scales.values.size, tensor.shape or (1,)
    axis = 0 if count in (1, shape[0]) else len(shape) - 1
    return Tensor(
        tensor.name, tensor.shape, tensor.dtype, tensor.constant_bytes, tensor.values,
        tuple(float(one) for one in scales.values.reshape(-1)),
        tuple(int(one) for one in points), axis,
    )  # fmt: skip


def dequantized(tensor: Tensor) -> np.ndarray:
    """A constant's values in its shape, as float64."""
    assert tensor.values is not None
    assert tensor.shape is not None
    values = np.asarray(tensor.values, np.float64).reshape(tensor.shape)
    if not tensor.scales:
        return values
    scales, zeros = np.asarray(tensor.scales), np.asarray(tensor.zero_points or (0,), np.float64)
    if len(scales) > 1:
        scales = _spread(scales, values.shape, tensor.axis)
        zeros = _spread(zeros, values.shape, tensor.axis) if zeros.size > 1 else zeros
    result: np.ndarray = (values - zeros) * scales
    return result


def _spread(numbers: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """One number for each slice along an axis, or for each block of values along it (as ONNX's
    `block_size` has them), in a form that combines with the tensor."""
    if len(numbers) == shape[axis]:
        return numbers.reshape(
            [-1 if place == axis % len(shape) else 1 for place in range(len(shape))]
        )
    size = shape[axis]
    blocks = len(numbers) * size // int(np.prod(shape))
    form = [blocks if place == axis % len(shape) else each for place, each in enumerate(shape)]
    return numbers.reshape(form).repeat(-(-size // blocks), axis).take(range(size), axis)


def _oriented(op: Op, weight: np.ndarray) -> np.ndarray | None:
    """(out, in, ...) of a weight as its operator stores it."""
    if op.op == "DEPTHWISE_CONV_2D":
        return weight.transpose(3, 0, 1, 2)
    if op.op in ("CONV_2D", "TRANSPOSE_CONV"):
        return weight.transpose(0, 3, 1, 2)
    if op.op == "ConvTranspose":
        return weight.swapaxes(0, 1)
    if op.op in ("MatMul", "QLinearMatMul", "MatMulInteger") or (
        op.op in ("Gemm", "com.microsoft.QGemm") and not op.attributes.get("transB", 0)
    ):
        return weight.T if weight.ndim == 2 else None
    return weight if weight.ndim >= 2 else None


def _weighted_name(op: Op, weight_name: str) -> str:
    own = _path_name(op)
    if own:
        return own
    match = _WEIGHT.match(weight_name)
    if match and not weight_name.startswith("onnx::"):
        return match.group(1)
    return _name(op)


def _path_name(op: Op) -> str:
    """'layer1.0.conv1' from a node called '/layer1/0/conv1/Conv', or from TFLite's converter."""
    if op.name.startswith("/"):
        steps: list[str] = []
        for step in op.name.strip("/").split("/")[:-1]:
            if steps and step.startswith(f"{steps[-1]}."):  # a child named by its whole path
                steps.pop()
            steps.append(step)
        return ".".join(steps)
    return converted_layer(op.name) if names_layers(op.name) else ""


def _name(op: Op) -> str:
    """An operator's name where no weight gives one: its path, else what it writes."""
    if _path_name(op):
        return _path_name(op)
    written = next((key for key in op.outputs if key), op.name)
    return re.sub(r"^\d+:", "", written).split(";")[0] or op.op


def matched_layers(
    first: Sequence[FileLayer], second: Sequence[FileLayer]
) -> list[tuple[FileLayer, FileLayer]]:
    """Pairs of the same layer in two files: those with the same weight, the rest by order among
    those with the same shape."""
    left, pairs = list(second), []
    rest = []
    for layer in first:
        near = [(_distance(layer.weight, other.weight), n) for n, other in enumerate(left)]
        distance, place = min(near, default=(np.inf, -1))
        if distance < SAME_WEIGHT:
            pairs.append((layer, left.pop(place)))
        else:
            rest.append(layer)
    keys = [[_shape(layer.weight) for layer in part] for part in (rest, left)]
    for block in SequenceMatcher(a=keys[0], b=keys[1], autojunk=False).get_matching_blocks():
        pairs += [(rest[block.a + n], left[block.b + n]) for n in range(block.size)]
    return sorted(pairs, key=lambda pair: pair[0].place)


def _shape(weight: np.ndarray) -> tuple[int, ...]:
    return tuple(size for size in weight.shape if size > 1)


def _distance(weight: np.ndarray, other: np.ndarray) -> float:
    if _shape(weight) != _shape(other):
        return float("inf")
    a, b = weight.reshape(-1), other.reshape(-1)
    largest = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    return float(np.linalg.norm(a - b)) / largest if largest else 0.0
