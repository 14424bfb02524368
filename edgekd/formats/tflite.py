"""A TFLite flatbuffer read in pure Python: nothing is executed, and every length is checked.

The schema is TensorFlow's `schema.fbs` in the form that LiteRT ships. An operator's code is the
larger of `builtin_code` and `deprecated_builtin_code`, as the schema's comments require.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError, MissingPackage
from edgekd.formats.graph import BITS, Graph, Op, Tensor, read_bytes

IDENTIFIER = b"TFL3"

# The fields of each options table that checks use; the rest of a table is not read.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "AddOptions": ("FusedActivationFunction",),
    "SubOptions": ("FusedActivationFunction",),
    "MulOptions": ("FusedActivationFunction",),
    "DivOptions": ("FusedActivationFunction",),
    "Conv2DOptions": (
        "DilationHFactor", "DilationWFactor", "StrideH", "StrideW", "Padding",
        "FusedActivationFunction",
    ),
    "DepthwiseConv2DOptions": (
        "DilationHFactor", "DilationWFactor", "StrideH", "StrideW", "Padding", "DepthMultiplier",
        "FusedActivationFunction",
    ),
    "Pool2DOptions": (
        "FilterHeight", "FilterWidth", "StrideH", "StrideW", "Padding", "FusedActivationFunction",
    ),
    "FullyConnectedOptions": ("WeightsFormat", "KeepNumDims", "FusedActivationFunction"),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "PackOptions": ("Axis",),
    "GatherOptions": ("Axis", "BatchDims"),
    "ReducerOptions": ("KeepDims",),
    "StridedSliceOptions": (
        "EllipsisMask", "NewAxisMask", "BeginMask", "EndMask", "ShrinkAxisMask",
    ),
    "LeakyReluOptions": ("Alpha",),
    "ResizeNearestNeighborOptions": ("AlignCorners", "HalfPixelCenters"),
    "SoftmaxOptions": ("Beta",),
    "BatchMatMulOptions": ("AdjX", "AdjY"),
    "ResizeBilinearOptions": ("AlignCorners", "HalfPixelCenters"),
    "MirrorPadOptions": ("Mode",),
    "GeluOptions": ("Approximate",),
}  # fmt: skip

DTYPES = {"FLOAT8_E4M3FN": "float8", "FLOAT8_E5M2": "float8"}


class _Reader:
    """Holds the schema and the bytes, and keeps a corrupt file from causing endless work.

    In a valid file every element of every vector takes at least a byte of its own, so reading more
    elements than the file has bytes means that the file is corrupt.
    """

    def __init__(self, content: bytes, schema: Any) -> None:
        self.content = content
        self.schema = schema
        self.budget = len(content)
        self.shared = 8 * len(content)  # vectors of numbers may be shared, but not without limit
        self.types = _names(schema.TensorType)
        self.codes = _names(schema.BuiltinOperator)
        self.options = _names(schema.BuiltinOptions)

    def items(self, length: int, get: Callable[[int], Any]) -> Iterator[Any]:
        if not 0 <= length <= self.budget:
            raise ValueError("a vector is longer than the file")
        self.budget -= length
        for index in range(length):
            yield get(index)

    def numbers(self, length: int, array: Callable[[], Any]) -> np.ndarray:
        if not 0 <= length <= min(len(self.content), self.shared):
            raise ValueError("vectors of numbers are longer than the file")
        self.shared -= length
        return np.asarray(array()) if length else np.empty(0, np.int64)

    def data(self, buffer: Any) -> np.ndarray:
        """A buffer's bytes without copying; large models store them after the flatbuffer."""
        if buffer.Offset() > 1:
            view = np.frombuffer(self.content, np.uint8, buffer.Size(), buffer.Offset())
            return view
        return self.numbers(buffer.DataLength(), buffer.DataAsNumpy)


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


def read_tflite(path: Path, signature: str = "") -> Graph:
    """The main subgraph of a TFLite file, or that of a signature, whose inputs and outputs have the
    signature's names.

    Raises:
        InputError: the file is not TFLite, is truncated or inconsistent, or has no such signature.
        MissingPackage: LiteRT's schema is not installed.
    """
    content = read_bytes(path)
    if content[4:8] != IDENTIFIER:
        raise InputError("not a TFLite file (no 'TFL3' identifier)", where=str(path))
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise MissingPackage("ai-edge-litert", "tflite", where=str(path)) from None
    try:
        return _graph(_Reader(content, schema), signature)
    except InputError as error:
        raise InputError(error.message, where=str(path), allowed=error.allowed) from None
    except (
        ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError,
        struct.error,
    ) as error:  # fmt: skip
        raise InputError(f"a truncated or corrupt TFLite file: {error}", where=str(path)) from None


def _graph(reader: _Reader, signature: str) -> Graph:
    model = reader.schema.Model.GetRootAs(reader.content, 0)
    if model.SubgraphsLength() < 1:
        raise ValueError("it has no subgraph")
    signatures = _signatures(reader, model)
    if signature and signature not in signatures:
        raise InputError(f"it has no signature '{signature}'", allowed=", ".join(signatures))
    chosen = signatures.get(signature, _Signature(0, {}, {}))
    buffers = [reader.data(one) for one in reader.items(model.BuffersLength(), model.Buffers)]
    codes = [
        _code(reader, one) for one in reader.items(model.OperatorCodesLength(), model.OperatorCodes)
    ]
    if not 0 <= chosen.subgraph < model.SubgraphsLength():
        raise ValueError(f"signature '{signature}' refers to subgraph {chosen.subgraph}")
    subgraph = model.Subgraphs(chosen.subgraph)
    tensors = [
        _tensor(reader, one, buffers)
        for one in reader.items(subgraph.TensorsLength(), subgraph.Tensors)
    ]
    keys = [f"{index}:{tensor.name}" for index, tensor in enumerate(tensors)]
    ops = [
        _op(reader, index, one, codes, keys)
        for index, one in enumerate(reader.items(subgraph.OperatorsLength(), subgraph.Operators))
    ]
    if not ops:
        raise ValueError("it has no operators")
    facts: dict[str, float | str] = {
        "schema_version": model.Version(),
        "subgraphs": model.SubgraphsLength(),
        "signatures": ", ".join(signatures) if len(signatures) > 1 else "",
        "signature": next(iter(signatures), ""),
    }
    graph = Graph(
        ops=tuple(ops),
        tensors=dict(zip(keys, tensors, strict=True)),
        inputs=_ends(reader, subgraph.InputsLength(), subgraph.InputsAsNumpy, keys),
        outputs=_ends(reader, subgraph.OutputsLength(), subgraph.OutputsAsNumpy, keys),
        facts=facts,
    )
    return _renamed(graph, chosen, keys) if signature else graph


@dataclass(frozen=True)
class _Signature:
    """One way to call a file: its subgraph, and the tensors of its named inputs and outputs."""

    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


def _signatures(reader: _Reader, model: Any) -> dict[str, _Signature]:
    return {
        _text(one.SignatureKey()): _Signature(
            int(one.SubgraphIndex()),
            _named(reader, one.InputsLength(), one.Inputs),
            _named(reader, one.OutputsLength(), one.Outputs),
        )
        for one in reader.items(model.SignatureDefsLength(), model.SignatureDefs)
    }


def _named(reader: _Reader, length: int, get: Callable[[int], Any]) -> dict[str, int]:
    return {_text(one.Name()): int(one.TensorIndex()) for one in reader.items(length, get)}


def _renamed(graph: Graph, signature: _Signature, keys: list[str]) -> Graph:
    """The graph with the signature's inputs and outputs, in its order and with its names."""
    ends = {**signature.inputs, **signature.outputs}
    if any(not 0 <= index < len(keys) for index in ends.values()):
        raise ValueError("a signature refers to a tensor that does not exist")
    names = {keys[index]: name for name, index in ends.items()}
    tensors = {
        key: replace(tensor, name=names.get(key, tensor.name))
        for key, tensor in graph.tensors.items()
    }
    inputs = tuple(keys[index] for index in signature.inputs.values())
    outputs = tuple(keys[index] for index in signature.outputs.values())
    return replace(graph, tensors=tensors, inputs=inputs, outputs=outputs)


def _code(reader: _Reader, code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = reader.codes[number]
    custom = code.CustomCode() if name == "CUSTOM" else None
    return f"CUSTOM {_text(custom)}" if custom else name


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", errors="replace")


def _tensor(reader: _Reader, tensor: Any, buffers: list[np.ndarray]) -> Tensor:
    dtype = reader.types[tensor.Type()]
    dtype = DTYPES.get(dtype, dtype.lower())
    shape = reader.numbers(tensor.ShapeLength(), tensor.ShapeAsNumpy)
    signature = reader.numbers(tensor.ShapeSignatureLength(), tensor.ShapeSignatureAsNumpy)
    if len(signature) == len(shape):
        shape = np.where(signature < 0, -1, shape)
    if any(size < -1 for size in shape):
        raise ValueError("a dimension is negative")
    if not 0 <= tensor.Buffer() < len(buffers):
        raise ValueError(f"a tensor refers to buffer {tensor.Buffer()} of {len(buffers)}")
    data = buffers[tensor.Buffer()]
    scales, zero_points, axis = _quantization(reader, tensor.Quantization())
    value = Tensor(
        name=_text(tensor.Name()),
        shape=tuple(int(size) for size in shape),
        dtype=dtype,
        constant_bytes=len(data) or None,
        values=_values(data, dtype) if len(data) and tensor.Sparsity() is None else None,
        scales=scales,
        zero_points=zero_points,
        axis=axis,
    )
    dense = tensor.Sparsity() is None and value.bytes is not None
    if len(data) and dense and len(data) < value.bytes:  # type: ignore[operator]
        raise ValueError(f"tensor '{value.name}' has {len(data)} of its {value.bytes} bytes")
    return value


def _values(data: np.ndarray, dtype: str) -> np.ndarray | None:
    if BITS.get(dtype, 0) < 8 or dtype in ("bfloat16", "float8"):
        return None
    usable = len(data) - len(data) % (BITS[dtype] // 8)
    return data[:usable].view(dtype)


def _quantization(reader: _Reader, table: Any) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if table is None:
        return (), (), 0
    scales = reader.numbers(table.ScaleLength(), table.ScaleAsNumpy)
    zero_points = reader.numbers(table.ZeroPointLength(), table.ZeroPointAsNumpy)
    return (
        tuple(float(one) for one in scales),
        tuple(int(one) for one in zero_points),
        int(table.QuantizedDimension()),
    )


def _keys(
    reader: _Reader, length: int, array: Callable[[], Any], keys: list[str]
) -> tuple[str, ...]:
    indices = [int(one) for one in reader.numbers(length, array)]
    if any(not -1 <= index < len(keys) for index in indices):
        raise ValueError(f"an operator refers to a tensor beyond the existing {len(keys)}")
    return tuple(keys[index] if index >= 0 else "" for index in indices)


def _ends(
    reader: _Reader, length: int, array: Callable[[], Any], keys: list[str]
) -> tuple[str, ...]:
    """The model's inputs or outputs: none of them may be omitted, unlike an operator's."""
    names = _keys(reader, length, array, keys)
    if "" in names:
        raise ValueError("an input or output is missing")
    return names


def _op(reader: _Reader, index: int, op: Any, codes: list[str], keys: list[str]) -> Op:
    if not 0 <= op.OpcodeIndex() < len(codes):
        raise ValueError(f"operator {index} refers to code {op.OpcodeIndex()} of {len(codes)}")
    outputs = _keys(reader, op.OutputsLength(), op.OutputsAsNumpy, keys)
    return Op(
        name=next((key.partition(":")[2] for key in outputs if key), f"operator {index}"),
        op=codes[op.OpcodeIndex()],
        inputs=_keys(reader, op.InputsLength(), op.InputsAsNumpy, keys),
        outputs=outputs,
        attributes=_attributes(reader, op),
    )


def _attributes(reader: _Reader, op: Any) -> dict[str, Any]:
    kind = reader.options.get(op.BuiltinOptionsType(), "")
    union = op.BuiltinOptions()
    if union is None or kind not in FIELDS:
        return {}
    table = getattr(reader.schema, kind)()
    table.Init(union.Bytes, union.Pos)
    return {field: getattr(table, field)() for field in FIELDS[kind]}
