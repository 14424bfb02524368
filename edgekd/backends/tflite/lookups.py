"""Tables in a TFLite file, for functions without an int8 kernel: CAST, ADD and GATHER in the place
of the products that stand for them."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from edgekd.formats.tflite_metadata import aligned, packed, unpacked
from edgekd.quant.chains import Chain
from edgekd.quant.tables import Table

aten = torch.ops.aten

_OWN_KERNELS = {
    aten.gelu.default,
    aten.exp.default,
    aten.sqrt.default,
    aten.abs.default,
    aten.neg.default,
}
"""Functions that TFLite's int8 kernels compute by tables of their own or exactly."""


def has_no_kernel(chain: Chain) -> bool:
    """Whether the converter would make float operators of a function."""
    return len(chain.nodes) > 1 or chain.tail.target not in _OWN_KERNELS


def insert_tables(content: bytes, tables: Sequence[Table]) -> bytes:
    """The same file with each table in its place."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    by_mark = {np.float32(table.mark): table for table in tables}
    for graph in model.subgraphs:
        writer = Writer(schema, model, graph)
        operators = []
        for op in graph.operators:
            table = by_mark.get(_mark(schema, graph, op, by_mark))
            operators += [op] if table is None else writer.lookup(op, table)
        graph.operators = operators
    return packed(model, len(content) + 1024 * len(tables))


def _mark(schema: Any, graph: Any, op: Any, marks: Collection[Any]) -> Any:
    """The mark that is the scale of a product's operand; None for other operators."""
    if op.builtinOptionsType != schema.BuiltinOptions.MulOptions:
        return None
    for place in op.inputs:
        tensor = graph.tensors[place]
        scales = None if tensor.quantization is None else tensor.quantization.scale
        if scales is not None and len(scales) == 1 and np.float32(scales[0]) in marks:
            return np.float32(scales[0])
    return None


def _on_grid_of(result: Any, table: Table) -> np.ndarray:
    """The table's integers on the grid that the converter has given to their result: it leaves out
    a grid that is followed by another one, as before a choice between two values."""
    step, zero = np.float32(result.quantization.scale[0]), int(result.quantization.zeroPoint[0])
    if (step, zero) == (np.float32(table.scale), table.zero):
        return table.values
    numbers = (table.values.astype(np.float32) - table.zero) * np.float32(table.scale)
    moved: np.ndarray = np.clip(np.round(numbers / step) + zero, -128, 127)
    return moved


_VERSIONS = {"RESHAPE": 1}
"""The versions of operators that are not their second one."""


class Writer:
    """Adds operators and tensors to one subgraph."""

    def __init__(self, schema: Any, model: Any, graph: Any) -> None:
        self.schema, self.model, self.graph = schema, model, graph

    def lookup(self, op: Any, table: Table) -> list[Any]:
        """The operators that read the table: the integers from -128 on are moved to 0 and on."""
        schema = self.schema
        marked = [np.float32(table.mark) in self._scales(place) for place in op.inputs]
        source, factors = (int(op.inputs[marked.index(each)]) for each in (False, True))
        result, channels = int(op.outputs[0]), len(table.values)
        given, made = self.graph.tensors[source], self.graph.tensors[result]
        shape = self.graph.tensors[factors].shape if channels > 1 else [1]
        first = np.arange(channels, dtype=np.int32).reshape(shape) * 256 + 128
        wide = self._computed(given, b"wide")
        index = self._computed(given, b"index")
        offset = self.constant(first.astype(np.int32), schema.TensorType.INT32, None)
        integers = _on_grid_of(made, table).reshape(-1).astype(np.int8)
        values = self.constant(integers, schema.TensorType.INT8, made.quantization)
        cast, add, gather = schema.CastOptionsT(), schema.AddOptionsT(), schema.GatherOptionsT()
        cast.inDataType, cast.outDataType = schema.TensorType.INT8, schema.TensorType.INT32
        return [
            self.operator("CAST", [source], [wide], "CastOptions", cast),
            self.operator("ADD", [wide, offset], [index], "AddOptions", add),
            self.operator("GATHER", [values, index], [result], "GatherOptions", gather),
        ]

    def _scales(self, place: int) -> list[Any]:
        grid = self.graph.tensors[place].quantization
        return [] if grid is None or grid.scale is None else [np.float32(x) for x in grid.scale]

    def operator(
        self, kind: str, inputs: list[int], outputs: list[int], options: str, values: Any
    ) -> Any:
        op = self.schema.OperatorT()
        version = _VERSIONS.get(kind, 2)
        op.opcodeIndex = self._code(getattr(self.schema.BuiltinOperator, kind), version)
        op.inputs, op.outputs = inputs, outputs
        op.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        op.builtinOptions = values
        return op

    def _code(self, number: int, version: int) -> int:
        for place, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                return place
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = (
            number,
            min(number, 127),
            version,
        )
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _computed(self, like: Any, name: bytes) -> int:
        place = self.like(like, like.shape, name)
        tensor = self.graph.tensors[place]
        tensor.shapeSignature = like.shapeSignature
        tensor.type, tensor.quantization = self.schema.TensorType.INT32, None
        return place

    def like(self, other: Any, shape: list[int], name: bytes) -> int:
        """A new tensor of the type and on the grid of another one."""
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.quantization = shape, other.type, other.quantization
        tensor.buffer = 0
        tensor.name = (other.name or b"") + b"/" + name
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, value: np.ndarray, kind: int, grid: Any) -> int:
        buffer = type(self.model.buffers[0])()
        buffer.Pack = aligned(self.schema, buffer)
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.quantization = list(value.shape), kind, grid
        tensor.buffer, tensor.name = len(self.model.buffers) - 1, b"table"
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1
