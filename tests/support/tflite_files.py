"""TFLite files of single operators, written field by field, and what runtimes make of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

CODES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32,
         "float32": schema.TensorType.FLOAT32, "int64": schema.TensorType.INT64,
         "bool": schema.TensorType.BOOL}  # fmt: skip


FIRST = (
    "HARD_SWISH",
    "LOGICAL_AND",
    "LOGICAL_NOT",
    "LOGICAL_OR",
    "PADV2",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
    "RESHAPE",
)
"""Operators of which the runtimes know only the first version."""


@dataclass
class T:
    """A tensor: shape, scales, zero point, values if it is constant, and its name."""

    shape: Sequence[int]
    scale: float | Sequence[float] = 0.05
    zero: int = 0
    values: Any = None
    dtype: str = "int8"
    axis: int = 0
    name: str = ""


@dataclass
class O:  # noqa: E742
    """An operator: its kind, tensors by number (-1 for one left out), options by field."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: dict[str, Any] = field(default_factory=dict)
    table: str = ""


def integers(values: Any, axis: int = 0) -> T:
    """A constant of int32."""
    array = np.asarray(values, np.int32)
    return T(array.shape, (), 0, array, "int32", axis)


@dataclass
class G:
    """A subgraph: tensors, operators, the numbers of its inputs and outputs, and its signature."""

    tensors: Sequence[T]
    ops: Sequence[O]
    inputs: Sequence[int]
    outputs: Sequence[int]
    signature: str = ""


def tflite(
    tensors: Sequence[T], ops: Sequence[O], inputs: Sequence[int], outputs: Sequence[int]
) -> bytes:
    """The file of one subgraph."""
    return tflite_of([G(tensors, ops, inputs, outputs)])


def tflite_of(graphs: Sequence[G]) -> bytes:
    """The file."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    kinds = list(dict.fromkeys(op.kind for graph in graphs for op in graph.ops))
    model.operatorCodes = [_code(kind) for kind in kinds]
    model.subgraphs = [_graph(model, graph, kinds) for graph in graphs]
    model.signatureDefs = [
        _signature(number, graph) for number, graph in enumerate(graphs) if graph.signature
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _graph(model: Any, described: G, kinds: list[str]) -> Any:
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(model, number, one) for number, one in enumerate(described.tensors)]
    graph.inputs, graph.outputs = list(described.inputs), list(described.outputs)
    graph.operators = [_operator(op, kinds.index(op.kind)) for op in described.ops]
    return graph


def _signature(subgraph: int, described: G) -> Any:
    found = schema.SignatureDefT()
    found.signatureKey, found.subgraphIndex = described.signature.encode(), subgraph
    found.inputs = [_ending(f"in{i}", index) for i, index in enumerate(described.inputs)]
    found.outputs = [_ending(f"out{i}", index) for i, index in enumerate(described.outputs)]
    return found


def _ending(name: str, index: int) -> Any:
    found = schema.TensorMapT()
    found.name, found.tensorIndex = name.encode(), index
    return found


def _tensor(model: Any, number: int, one: T) -> Any:
    tensor = schema.TensorT()
    tensor.name = (one.name or f"t{number}").encode()
    tensor.shape = list(one.shape)
    tensor.type = CODES[one.dtype]
    tensor.buffer = 0
    scales = [one.scale] if isinstance(one.scale, float | int) else list(one.scale)
    if scales:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [float(np.float32(scale)) for scale in scales]
        tensor.quantization.zeroPoint = [one.zero] * len(scales)
        tensor.quantization.quantizedDimension = one.axis
    if one.values is not None:
        buffer = schema.BufferT()
        buffer.data = list(np.ascontiguousarray(np.asarray(one.values, one.dtype)).tobytes())
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    return tensor


def _code(kind: str) -> Any:
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, kind)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = 1 if kind in FIRST else 2
    return code


def _operator(op: O, index: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = index
    operator.inputs, operator.outputs = list(op.inputs), list(op.outputs)
    if op.table:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, op.table)
        operator.builtinOptions = getattr(schema, f"{op.table}T")()
        for key, value in op.options.items():
            assert hasattr(operator.builtinOptions, key), key
            setattr(operator.builtinOptions, key, value)
    return operator
