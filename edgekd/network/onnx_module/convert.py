"""From an ONNX file to a PyTorch module."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import InputError, first_line
from edgekd.formats.onnx_file import read_onnx
from edgekd.network.onnx_module.coverage import covered
from edgekd.network.onnx_module.layers import LAYERS, Layer
from edgekd.network.onnx_module.module import OnnxModule, Step, place_module, run_constant
from edgekd.network.onnx_module.table import OPERATORS, Node

HALF = (torch.float16, torch.bfloat16, torch.float64)
PLAIN = {"Clip": (1, 2), "Pad": (2,), "Resize": (2,), "Upsample": (1,)}
NO_WEIGHTS = re.compile(r"\.?(weight|weight_orig|kernel)$")


def module_of_onnx(path: Path) -> nn.Module:
    """The float32 module of an ONNX file, in eval mode.

    Raises `InputError` for a file that can't be read, that is quantized already, or that has an
    operator that can't be converted.
    """
    graph = read_onnx(path)
    quantized = [op for op in graph.counts if "Quantize" in op or op.startswith("QLinear")]
    if quantized:
        raise InputError(f"already quantized: it has {quantized[0]}", where=str(path))
    model = _model(path)
    _refuse_uncovered(model, path)
    try:
        module = _Conversion(model).module()
    except (
        NotImplementedError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        RuntimeError,
    ) as error:
        raise InputError(f"it can't be converted: {first_line(error)}", where=str(path)) from error
    return module.eval()


def _model(path: Path) -> Any:
    import onnx
    from onnx import inliner

    model = onnx.load(path)
    return inliner.inline_local_functions(model) if model.functions else model


def _refuse_uncovered(model: Any, path: Path) -> None:
    known = covered()
    counts = Counter(_operator(node) for node in model.graph.node)
    missing = [f"{count} {op}" for op, count in counts.items() if op not in (*known, "Constant")]
    if missing:
        raise InputError(
            f"operators without a counterpart in PyTorch: {', '.join(missing)}",
            where=str(path),
            hint="'edgekd inspect' lists its operators, docs/finished-files.md those that convert",
        )


def _operator(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


Shape = tuple[int, ...]


@dataclass
class _Conversion:
    """The state of one conversion. `constants` are those that steps read."""

    model: Any
    constants: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    layers: dict[tuple[Any, ...], tuple[str, nn.Module]] = field(default_factory=dict)

    def module(self) -> OnnxModule:
        graph = self.model.graph
        self.constants = {one.name: _constant(one) for one in graph.initializer}
        names = [one.name for one in graph.input if one.name not in self.constants]
        batch = _fixed_batch([one for one in graph.input if one.name in names])
        opset = max((o.version for o in self.model.opset_import if o.domain == ""), default=0)
        shapes = _shapes(self.model)
        for node, inputs, outputs in _joined(graph, self.constants, opset, batch):
            self._add(_flattening(node, inputs, self.constants, shapes), inputs, outputs, shapes)
        results = [one.name for one in graph.output]
        read = {name for step in self.steps for name in step.inputs} | set(results)
        kept = {name: value for name, value in self.constants.items() if name in read}
        module = OnnxModule(self.steps, kept, names, results)
        for path, layer in self.layers.values():
            assert place_module(module, path, layer) == path
        return module

    def _add(
        self, node: Node, inputs: Sequence[str], outputs: Sequence[str], shapes: Mapping[str, Shape]
    ) -> None:
        inputs = [self._plain(node, place, name) for place, name in enumerate(inputs)]
        values = [self.constants.get(name) for name in inputs]
        if all(name in self.constants or not name for name in inputs) and node.op in OPERATORS:
            found = run_constant(node, values)
            self.constants.update(zip(outputs, found, strict=False))
            return
        layer = self._layer(node, inputs, values, shapes)
        if layer is None and node.op not in OPERATORS:
            raise NotImplementedError(f"{node.op} '{node.name}' with these attributes")
        path, used = ("", tuple(inputs)) if layer is None else layer
        used = used[:1] if node.op == "Flatten" else used
        self.steps.append(Step(node, path, used, tuple(outputs)))

    def _plain(self, node: Node, place: int, name: str) -> str:
        """The name of an input. Of a constant that the operator takes as plain numbers, those of
        an array, which the exporter doesn't trace."""
        value = self.constants.get(name)
        if not isinstance(value, Tensor) or place not in PLAIN.get(node.op, ()):
            return name
        self.constants[f"{name}, plain"] = value.numpy()
        return f"{name}, plain"

    def _layer(
        self, node: Node, inputs: Sequence[str], values: Sequence[Any], shapes: Mapping[str, Shape]
    ) -> tuple[str, tuple[str, ...]] | None:
        """The path of a node's layer, and the inputs that it is called with."""
        if node.op not in LAYERS:
            return None
        constants = [value if isinstance(value, Tensor) else None for value in values]
        key = (node.op, str(sorted(node.attributes.items(), key=str)), *(
            name for name, value in zip(inputs, constants, strict=True) if value is not None
        ))  # fmt: skip
        made: Layer | None = LAYERS[node.op](node, constants, _rank(shapes.get(inputs[0])))
        if made is None:
            return None
        if key not in self.layers:
            self.layers[key] = (self._path(node, inputs), made.module)
        path = self.layers[key][0]
        used = [inputs[place] for place in made.inputs if place < len(inputs)]
        return path, tuple(name for name in used if name)

    def _path(self, node: Node, inputs: Sequence[str]) -> str:
        """Where the layer belongs: the path of its weights if they have one, or the node's name."""
        weights = next((n for n in inputs if n in self.constants and NO_WEIGHTS.search(n)), "")
        path = NO_WEIGHTS.sub("", weights) or re.sub(r"\W+", "_", node.name).strip("_")
        path = re.sub(r"[^\w.]+", "_", path).strip("._") or node.op
        taken = {taken for taken, _ in self.layers.values()}
        while any(each == path or each.startswith(f"{path}.") for each in taken):
            path += "_"
        parents = [path[:end] for end, letter in enumerate(path) if letter == "."]
        if any(parent in taken for parent in parents):
            path = path.replace(".", "_")
        return path if not hasattr(nn.Module, path.split(".")[0]) else f"onnx_{path}"


def _constant(proto: Any) -> Any:
    """An initializer: integers of up to one dimension are sizes, wider floats become float32."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(proto)
    return _as_value(array)


def _as_value(array: np.ndarray) -> Any:
    if array.dtype.kind in "iu" and array.dtype.itemsize >= 4 and array.ndim <= 1:
        return array.astype(np.int64)
    if array.dtype.kind in "SUO":
        raise NotImplementedError("constants of text")
    value = torch.from_numpy(np.array(array if array.dtype.kind != "V" else array.astype("f4")))
    return value.float() if value.dtype in HALF else value


def _fixed_batch(inputs: Sequence[Any]) -> int:
    """The batch size that all inputs have, or 0 if it is free."""
    sizes = set()
    for one in inputs:
        dims = one.type.tensor_type.shape.dim
        sizes.add(dims[0].dim_value if dims and dims[0].HasField("dim_value") else 0)
    return sizes.pop() if len(sizes) == 1 else 0


def _shapes(model: Any) -> dict[str, Shape]:
    """The tensors' shapes, as far as the file says or onnx can infer; an open size is 0."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # a file that says something else than it computes
        inferred = model
    graph = inferred.graph
    return {
        one.name: tuple(size.dim_value for size in one.type.tensor_type.shape.dim)
        for one in (*graph.input, *graph.value_info, *graph.output)
        if one.type.tensor_type.HasField("shape")
    }


def _rank(shape: Shape | None) -> int | None:
    return None if shape is None else len(shape)


def _flattening(
    node: Node, inputs: Sequence[str], constants: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> Node:
    """A Reshape that joins all but the first dimension as a Flatten: it names no number of
    channels, so that some of them may be removed."""
    if node.op != "Reshape" or len(inputs) < 2:
        return node
    wanted, (batch, *rest) = constants.get(inputs[1]), shapes.get(inputs[0], (0,)) or (0,)
    if not isinstance(wanted, np.ndarray) or len(wanted) != 2 or not all(rest):
        return node
    first, second = (int(each) for each in wanted)
    size = int(np.prod(rest))
    if len(rest) > 1 and (first in (-1, 0, batch)) and second in (-1, size) and first != second:
        return replace(node, op="Flatten", attributes={"axis": 1})
    return node


Listed = tuple[Node, tuple[str, ...], tuple[str, ...]]


def _joined(graph: Any, constants: dict[str, Any], opset: int, batch: int) -> list[Listed]:
    """The nodes in order. A MatMul with a constant matrix takes up the Add of a constant vector
    that alone reads it, so that both are one linear layer."""
    from onnx import helper

    nodes: list[Listed] = []
    for number, each in enumerate(graph.node):
        attributes = {a.name: _attribute(helper.get_attribute_value(a)) for a in each.attribute}
        if each.op_type == "Constant":
            constants[each.output[0]] = _constant_node(attributes)
            continue
        name = each.name or f"{each.op_type}_{number}"
        attributes["fixed_batch"] = batch
        node = Node(name, _operator(each), attributes, len(each.output), opset)
        nodes.append((node, tuple(each.input), tuple(each.output)))
    readers = Counter(name for _, inputs, _ in nodes for name in inputs)
    readers.update(one.name for one in graph.output)
    return _with_biases(nodes, constants, readers)


def _with_biases(
    nodes: list[Listed], constants: Mapping[str, Any], readers: Mapping[str, int]
) -> list[Listed]:
    products = {
        outputs[0]: place
        for place, (node, inputs, outputs) in enumerate(nodes)
        if node.op == "MatMul" and readers[outputs[0]] == 1
        and isinstance(constants.get(inputs[1]), Tensor) and constants[inputs[1]].dim() == 2
    }  # fmt: skip
    found: list[Listed | None] = list(nodes)
    for place, (node, inputs, outputs) in enumerate(nodes):
        source = next((name for name in inputs if name in products), "")
        if node.op != "Add" or not source:
            continue
        bias = next((name for name in inputs if name != source), "")
        first, (x, weight), _ = nodes[products[source]]
        value = constants.get(bias)
        if isinstance(value, Tensor) and value.shape == constants[weight].shape[1:]:
            found[products[source]] = None
            found[place] = (first, (x, weight, bias), outputs)
    return [each for each in found if each is not None]


def _attribute(value: Any) -> Any:
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return _as_value(numpy_helper.to_array(value))
    return value


def _constant_node(attributes: Mapping[str, Any]) -> Any:
    (key, value), *_ = attributes.items()
    if key == "value":
        return value
    if "string" in key or key == "sparse_value":
        raise NotImplementedError(f"a Constant with {key}")
    return _as_value(np.asarray(value, np.float32 if "float" in key else np.int64))
