"""Where an artifact diverges from its reference: layer by layer, on the artifact's own inputs.

The artifact's quantized tensors are matched with the graph's quantize nodes in order of execution,
by scale and shape. Zero points are ignored: int8 from -128 and uint8 from 0 are the same grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgekd.network.fx_names import layer_of, module_paths
from edgekd.values.artifact import Artifact

_QUANTIZE = "quantized_decomposed.quantize_per_tensor"
_DEQUANTIZE = "quantized_decomposed.dequantize"
_WEIGHTED = ("conv", "linear", "addmm", "matmul", "bmm", "mm.")


@dataclass(frozen=True, eq=False)
class Seen:
    """One quantized tensor that a runtime computed, as float values."""

    name: str
    values: np.ndarray
    scale: float


def first_difference(graph: fx.GraphModule, artifact: Artifact, x: np.ndarray, most: float) -> str:
    """See `edgekd.measure.parity.first_difference`."""
    read = _READERS.get(artifact.format)
    if read is None:
        return f"unknown: a {artifact.format} artifact does not expose its intermediate tensors"
    seen = read(artifact.path, x)
    points = _reference_points(graph, x)
    matches = _matched(points, seen)
    if not matches:
        return (
            f"unknown: none of the artifact's {len(seen)} quantized tensors "
            f"matches one of the reference's {len(points)}"
        )
    run = _Forced(graph, matches)
    run.run(torch.from_numpy(x))
    for name, lsb in run.differences:
        if lsb > most:
            return f"{name}: {lsb:.0f} LSB from the reference on the same input"
    name, lsb = max(run.differences, key=lambda one: one[1])
    return (
        f"no single layer: each of {len(run.differences)} is within {most:g} LSB on the same "
        f"input (most: {name}, {lsb:.0f} LSB), so rounding errors accumulate or the kernels differ"
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """One activation's quantize node, its scale, and its shape for this input."""

    node: fx.Node
    scale: float
    shape: tuple[int, ...]


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.points: list[_Point] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if _quantizes_activation(n):
            self.points.append(_Point(n, _number(n.args[1]), tuple(result.shape)))
        return result


def _reference_points(graph: fx.GraphModule, x: np.ndarray) -> list[_Point]:
    recorder = _Recorder(graph)
    with torch.no_grad():
        recorder.run(torch.from_numpy(x))
    return recorder.points


def _quantizes_activation(node: fx.Node) -> bool:
    if node.op != "call_function" or not str(node.target).startswith(_QUANTIZE):
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and source.op != "get_attr" and _is_number(node.args[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _number(value: Any) -> float:
    return float(value)


def _matched(points: Sequence[_Point], seen: Sequence[Seen]) -> dict[fx.Node, Seen]:
    ours = [_key(point.scale, point.shape) for point in points]
    theirs = [_key(one.scale, one.values.shape) for one in seen]
    matcher = SequenceMatcher(a=ours, b=theirs, autojunk=False)
    return {
        points[block.a + step].node: seen[block.b + step]
        for block in matcher.get_matching_blocks()
        for step in range(block.size)
    }


def _key(scale: float, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """A key that is equal for the same tensor in channels-first and channels-last order."""
    return f"{np.float32(scale):.5g}", tuple(sorted(size for size in shape if size > 1))


class _Forced(fx.Interpreter):
    """Runs the graph, substituting the artifact's tensor for each one after comparing the two."""

    def __init__(self, graph: fx.GraphModule, matches: dict[fx.Node, Seen]) -> None:
        super().__init__(graph)
        self.matches = matches
        self.differences: list[tuple[str, float]] = []

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        seen = self.matches.get(n)
        if seen is None:
            return result
        scale, zero_point, low, high = (_number(argument) for argument in n.args[1:5])
        values = (result.double() - zero_point) * scale
        found = _laid_out(seen.values, values)
        self.differences.append((_layer(n), float((found - values).abs().max() / scale)))
        steps = torch.clamp(torch.round(found / scale) + zero_point, low, high)
        return steps.to(result.dtype)


def _laid_out(found: np.ndarray, like: Tensor) -> Tensor:
    """The artifact's tensor in the reference's layout, moving last channels to the front if needed.

    Sizes may allow several readings; the closest is the right one.
    """
    tensor = torch.from_numpy(found).double()
    readings = [tensor, *(_channels_first(tensor))]
    fitting = [one.reshape(like.shape) for one in readings if _fits(one, like)]
    return min(fitting, key=lambda one: float((one - like).abs().max()))


def _channels_first(tensor: Tensor) -> list[Tensor]:
    return [tensor.movedim(-1, 1)] if tensor.dim() > 2 else []


def _fits(tensor: Tensor, like: Tensor) -> bool:
    if tensor.dim() == like.dim():
        return tensor.shape == like.shape
    return tensor.numel() == like.numel()


def _layer(node: fx.Node) -> str:
    """The module that computes the quantized value, and its operation."""
    source: Any = node.args[0]
    responsible = source
    while isinstance(source, fx.Node) and not str(source.target).startswith(_DEQUANTIZE):
        if source.op == "call_function" and _op(source).startswith(_WEIGHTED):
            responsible = source
            break
        source = next(iter(source.all_input_nodes), None)
    if responsible.op == "placeholder":
        return "quantization of the input"
    name = layer_of(responsible) if module_paths(responsible) else _weight_name(responsible)
    return f"{name} ({_op(responsible).split('.')[0]})"


def _op(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.")


def _weight_name(node: fx.Node) -> str:
    """The constant read by a layer without a recorded module, or the node's own name."""
    for source in node.all_input_nodes[1:]:
        stored = source
        while stored.op == "call_function" and stored.all_input_nodes:
            if not str(stored.target).startswith("quantized_decomposed."):
                break
            stored = stored.all_input_nodes[0]
        if stored.op == "get_attr":
            return str(stored.target)
    return node.name


def _onnx_tensors(path: Path, x: np.ndarray) -> list[Seen]:
    """The output of every QuantizeLinear in an ONNX file, exposed as an output of the model."""
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = onnx.load(path)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    quantizers = [
        node
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
        and node.input[0] not in constants
        and np.size(constants.get(node.input[1], ())) == 1
    ]
    shown = {output.name for output in model.graph.output}
    for node in quantizers:
        if node.output[0] not in shown:
            kind = onnx.helper.np_dtype_to_tensor_dtype(_zero_point(node, constants).dtype)
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(node.output[0], kind, None)
            )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [node.output[0] for node in quantizers]
    tensors = session.run(names, {session.get_inputs()[0].name: x})
    seen = []
    for node, tensor in zip(quantizers, tensors, strict=True):
        scale = float(np.asarray(constants[node.input[1]]).reshape(-1)[0])
        zero_point = int(_zero_point(node, constants).reshape(-1)[0])
        values = (tensor.astype(np.float64) - zero_point) * scale
        seen.append(Seen(node.output[0], values, scale))
    return seen


def _zero_point(node: Any, constants: dict[str, np.ndarray]) -> np.ndarray:
    if len(node.input) > 2 and node.input[2]:
        return np.atleast_1d(constants[node.input[2]])
    return np.zeros(1, np.uint8)


def _tflite_tensors(path: Path, x: np.ndarray) -> list[Seen]:
    """Every quantized activation of a TFLite file, run with TensorFlow's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], _as_input(x, entry))
    interpreter.invoke()
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    order = [int(entry["index"])]
    for op in interpreter._get_ops_details():
        order += [int(index) for index in op["outputs"]]
    seen = []
    for index in dict.fromkeys(order):
        scale, zero_point = details[index]["quantization"]
        if scale and details[index]["dtype"] in (np.int8, np.uint8):
            tensor = interpreter.get_tensor(index).astype(np.float64)
            seen.append(Seen(details[index]["name"], (tensor - zero_point) * scale, float(scale)))
    return seen


def _as_input(x: np.ndarray, entry: Any) -> np.ndarray:
    """The float input in the file's own layout and grid."""
    shape = tuple(int(size) for size in entry["shape"])
    if x.shape != shape and x.ndim > 2:
        x = np.moveaxis(x, 1, -1)
    if entry["dtype"] == np.float32:
        return np.ascontiguousarray(x)
    scale, zero_point = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    steps: np.ndarray = np.clip(np.round(x / scale) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(steps.astype(entry["dtype"]))


_READERS: dict[str, Callable[[Path, np.ndarray], list[Seen]]] = {
    "onnx": _onnx_tensors,
    "tflite": _tflite_tensors,
}
