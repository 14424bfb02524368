"""An ONNX file read as protocol buffers, without running it or loading its external data."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError, MissingPackage, first_line
from edgekd.formats.graph import BITS, Graph, Op, Tensor, read_bytes
from edgekd.formats.onnx_steps import unfold_steps

DECODED_BYTES = 1 << 24
"""Constants up to this size are decoded: scales, zero points, axes and most weights."""


def read_onnx(path: Path) -> Graph:
    """The main graph of an ONNX file.

    Constants count wherever they are stored: initializers, Constant nodes, or external files.

    Raises:
        InputError: the file is not ONNX, is truncated or inconsistent.
        MissingPackage: onnx is not installed.
    """
    model = _load(path)
    with _damage(path):
        return _Reader(model, path.parent).graph()


def external_files(path: Path) -> tuple[Path, ...]:
    """The files that hold an ONNX file's external data, whether they exist or not.

    Empty if `onnx` is not installed. Raises `InputError` like `read_onnx`.
    """
    try:
        model = _load(path)
    except MissingPackage:
        return ()
    attributes = (attribute for node in model.graph.node for attribute in node.attribute)
    constants = [*model.graph.initializer, *(one.t for one in attributes if one.name == "value")]
    entries = [entry for constant in constants for entry in constant.external_data]
    with _damage(path):
        names = {entry.value for entry in entries if entry.key == "location"}
        return tuple(path.parent / name for name in sorted(names))


def _load(path: Path) -> Any:
    """The `onnx.ModelProto` of a file without its external data."""
    content = read_bytes(path)
    try:
        import onnx
    except ImportError:
        raise MissingPackage("onnx", "onnx", where=str(path)) from None
    with _damage(path):
        model = onnx.load_model_from_string(content)
        _refuse_broken_text(model.graph)
        if not model.graph.node:
            raise ValueError("it has no operators")
        return unfold_steps(model)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes onnx or the reader raise into one `InputError`."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        yield
    except (
        DecodeError, ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        reason = first_line(error)
        raise InputError(f"not an ONNX file, or truncated: {reason}", where=str(path)) from None


def _refuse_broken_text(graph: Any) -> None:
    """Protocol buffers return names that are not UTF-8 as bytes."""
    names = [text for node in graph.node for text in (node.op_type, node.domain, node.name)]
    names += [text for node in graph.node for text in (*node.input, *node.output)]
    named = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    names += [one.name for one in named]
    if any(not isinstance(name, str) for name in names):
        raise ValueError("a name is not valid UTF-8")


class _Reader:
    def __init__(self, model: Any, folder: Path) -> None:
        self.model = model
        self.folder = folder
        self.tensors: dict[str, Tensor] = {}
        self.external = 0

    def graph(self) -> Graph:
        """The values in one pass: constants, declared shapes, then operators."""
        source = self.model.graph
        for proto in source.initializer:
            self.tensors[proto.name] = self._constant(proto.name, proto)
        for info in (*source.input, *source.output, *source.value_info):
            self.tensors.setdefault(info.name, declared(info))
        ops = []
        for index, node in enumerate(source.node):
            if node.op_type == "Constant":
                self._constant_node(node)
                continue
            ops.append(self._op(index, node))
        if not ops:
            raise ValueError("it has only constants")
        inputs = [one.name for one in source.input]
        constants = {key for key, one in self.tensors.items() if one.constant_bytes is not None}
        facts: dict[str, float | str] = {
            "ir_version": self.model.ir_version,
            "opset": max((one.version for one in self.model.opset_import), default=0),
            "producer": str(self.model.producer_name),
            "external_bytes": self.external,
        }
        self._quantization(ops)
        return Graph(
            ops=tuple(ops),
            tensors=self.tensors,
            inputs=tuple(name for name in inputs if name not in constants),
            outputs=tuple(one.name for one in source.output),
            facts=facts,
        )

    def _op(self, index: int, node: Any) -> Op:
        for name in (*node.input, *node.output):
            if name and name not in self.tensors:
                self.tensors[name] = Tensor(name, None, "unknown")
        return Op(
            name=node.name or f"{node.op_type} {index}",
            op=node.op_type if not node.domain else f"{node.domain}.{node.op_type}",
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={
                one.name: one.i if one.type == one.INT else tuple(one.ints)
                for one in node.attribute
                if one.type in (one.INT, one.INTS)
            },
        )

    def _constant_node(self, node: Any) -> None:
        import onnx

        name = node.output[0]
        for attribute in node.attribute:
            if attribute.name == "value":
                self.tensors[name] = self._constant(name, attribute.t)
                return
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, (bytes, str)):
                self.tensors[name] = Tensor(name, (), "string", constant_bytes=len(value))
                return
            dtype = np.float32 if "float" in attribute.name else np.int64
            array = np.asarray(value, dtype)
            self.tensors[name] = Tensor(name, array.shape, array.dtype.name, array.nbytes, array)
            return
        raise ValueError(f"Constant node '{node.name}' has no value")

    def _constant(self, name: str, proto: Any) -> Tensor:
        from onnx import numpy_helper

        dtype = _dtype(proto.data_type)
        shape = tuple(int(size) for size in proto.dims)
        if any(size < 0 for size in shape):
            raise ValueError(f"constant '{name}' has a negative dimension")
        size = (math.prod(shape) * BITS.get(dtype, 8) + 7) // 8
        if proto.data_location == proto.EXTERNAL:
            self.external += size
            self._external_file(proto)
            return Tensor(name, shape, dtype, constant_bytes=size)
        if proto.raw_data and len(proto.raw_data) != size:
            raise ValueError(f"constant '{name}' has {len(proto.raw_data)} of its {size} bytes")
        if size > min(DECODED_BYTES, 64 * (proto.ByteSize() + 64)):
            if not proto.raw_data:
                raise ValueError(f"constant '{name}' has fewer than its {size} bytes")
            return Tensor(name, shape, dtype, constant_bytes=size)
        return Tensor(name, shape, dtype, constant_bytes=size, values=numpy_helper.to_array(proto))

    def _external_file(self, proto: Any) -> None:
        place = {one.key: one.value for one in proto.external_data}.get("location", "")
        if not (self.folder / place).is_file():
            raise ValueError(f"its external data '{place}' is not beside it")

    def _quantization(self, ops: list[Op]) -> None:
        """Set the scales of tensors that QuantizeLinear computes and DequantizeLinear reads."""
        for op in ops:
            if op.op not in ("QuantizeLinear", "DequantizeLinear") or len(op.inputs) < 2:
                continue
            key = op.outputs[0] if op.op == "QuantizeLinear" else op.inputs[0]
            tensor = self.tensors[key]
            scales = self._numbers(op.inputs[1])
            zero_key = op.inputs[2] if len(op.inputs) > 2 else ""
            zeros = self._numbers(zero_key) if zero_key else (0.0,) * len(scales)
            dtype = self.tensors[zero_key].dtype if zero_key else tensor.dtype
            self.tensors[key] = Tensor(
                name=tensor.name,
                shape=tensor.shape,
                dtype=dtype if tensor.dtype == "unknown" else tensor.dtype,
                constant_bytes=tensor.constant_bytes,
                values=tensor.values,
                scales=scales,
                zero_points=tuple(int(one) for one in zeros),
                axis=int(op.attributes.get("axis", 1)),
            )

    def _numbers(self, key: str) -> tuple[float, ...]:
        values = self.tensors[key].values
        return () if values is None else tuple(float(one) for one in values.ravel())


def _dtype(code: int) -> str:
    import onnx

    name = onnx.TensorProto.DataType.Name(code).lower()
    renamed = {"float": "float32", "double": "float64"}.get(name, name)
    return "float8" if renamed.startswith("float8") else renamed


def declared(info: Any) -> Tensor:
    """A tensor as the file declares it; a symbolic or missing dimension is open."""
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        return Tensor(info.name, None, "unknown")
    shape = None
    if kind.HasField("shape"):
        shape = tuple(
            int(one.dim_value) if one.HasField("dim_value") else -1 for one in kind.shape.dim
        )
    return Tensor(info.name, shape, _dtype(kind.elem_type))
