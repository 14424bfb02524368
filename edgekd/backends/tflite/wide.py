"""Layers with 16-bit activations in a TFLite file, which the converter does not write as kernels
take them: it has biases of 32 bits where sums need 64, no requantization between two widths,
and floats around marks (`quant.shielding`)."""

from typing import Any

import numpy as np

from edgekd.formats.tflite_metadata import aligned, packed, unpacked
from edgekd.quant.shielding import ADDED, MARK

_NARROWED = ("CONCATENATION", "ADD", "SUB")
"""Operators with kernels of 16 bits that the converter does not write."""

_LEVELS = 32767


def with_wide_layers(content: bytes) -> bytes:
    """The same file as kernels of 16 bits take it; the very bytes if it has none."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    if not any(
        tensor.type == schema.TensorType.INT16
        for graph in model.subgraphs
        for tensor in graph.tensors
    ):
        return content
    grown = 0
    for graph in model.subgraphs:
        editor = _Editor(schema, model, graph)
        editor.take_marks()
        editor.narrow_sums_and_joins()
        editor.drop_unread()
        grown += editor.widen_biases()
    return packed(model, len(content) + grown + 1024)


class _Editor:
    """Changes one subgraph of a model in place."""

    def __init__(self, schema: Any, model: Any, graph: Any) -> None:
        self.schema, self.model, self.graph = schema, model, graph

    def kind(self, op: Any) -> str:
        """An operator's name."""
        code = self.model.operatorCodes[op.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        names = vars(self.schema.BuiltinOperator)
        return next(str(name) for name, value in names.items() if value == number)

    def writers(self) -> dict[int, Any]:
        """The operator that writes each tensor."""
        return {int(place): op for op in self.graph.operators for place in op.outputs}

    def take_marks(self) -> None:
        """Remove the marks. A quantize operator that read one requantizes what the
        dequantize operator before it read."""
        writers = self.writers()
        behind: dict[int, int] = {}
        for op in self.graph.operators:
            if self._is_mark(op):
                data = next(int(p) for p in op.inputs if not self._is_constant(int(p)))
                behind[int(op.outputs[0])] = behind.get(data, data)
        for op in self.graph.operators:
            read = [int(place) for place in op.inputs]
            if not any(place in behind for place in read):
                continue
            sources = [behind.get(place, place) for place in read]
            before = writers.get(sources[0])
            if self.kind(op) == "QUANTIZE" and before and self.kind(before) == "DEQUANTIZE":
                sources = [int(before.inputs[0])]
            op.inputs = sources
        kept = [op for op in self.graph.operators if int(op.outputs[0]) not in behind]
        self.graph.operators = kept

    def narrow_sums_and_joins(self) -> None:
        """Let joins and sums with constants that stand between dequantize and quantize operators
        of 16 bits compute in those."""
        writers, readers = self.writers(), self._readers()
        dropped: set[int] = set()
        for op in self.graph.operators:
            if self.kind(op) not in _NARROWED:
                continue
            users = readers.get(int(op.outputs[0]), [])
            if len(users) != 1 or self.kind(users[0]) != "QUANTIZE":
                continue
            found = [self._wide_input(int(place), writers) for place in op.inputs]
            inputs = [place for place in found if place is not None]
            made = int(users[0].outputs[0])
            if len(inputs) < len(found) or not self._is_int16(made):
                continue
            if self.kind(op) == "CONCATENATION":
                scales = {self._scale(place) for place in (*inputs, made)}
                if len(scales) > 1:
                    continue
            op.inputs, op.outputs = [self._rounded(place) for place in inputs], [made]
            if self.kind(op) != "CONCATENATION":
                op.builtinOptions.potScaleInt16 = False
            dropped.add(id(users[0]))
        kept = [op for op in self.graph.operators if id(op) not in dropped]
        self.graph.operators = kept

    def drop_unread(self) -> None:
        """Remove dequantize operators that nobody reads any more."""
        readers, ends = self._readers(), set(map(int, self.graph.outputs))
        self.graph.operators = [
            op
            for op in self.graph.operators
            if self.kind(op) != "DEQUANTIZE"
            or int(op.outputs[0]) in readers
            or int(op.outputs[0]) in ends
        ]

    def widen_biases(self) -> int:
        """Store the biases of layers that read int16 in 64 bits, and so sum in those; the bytes
        that this takes. Convolutions and fully connected layers whose sums fit 32 bits whatever
        they read keep theirs, for which LiteRT has kernels that are 50 times as fast."""
        options = self.schema.BuiltinOptions
        layers = {
            options.Conv2DOptions,
            options.DepthwiseConv2DOptions,
            options.FullyConnectedOptions,
        }
        grown = 0
        for op in self.graph.operators:
            if op.builtinOptionsType not in layers or len(op.inputs) < 3 or op.inputs[2] < 0:
                continue
            if not self._is_int16(int(op.inputs[0])):
                continue
            if hasattr(op.builtinOptions, "quantizedBiasType") and self._fits_32_bits(op):
                op.builtinOptions.quantizedBiasType = self.schema.TensorType.INT32
            else:
                grown += self._widen(self.graph.tensors[op.inputs[2]])
        return grown

    def _fits_32_bits(self, op: Any) -> bool:
        """Whether the sum of a channel, whose largest size is that of all weights times the
        largest value and the bias, is below 2^31."""
        weights, bias = (self.graph.tensors[int(place)] for place in op.inputs[1:3])
        if weights.type != self.schema.TensorType.INT8 or bias.type != self.schema.TensorType.INT32:
            return False
        rows = self._data(weights, np.int8).reshape(int(weights.shape[0]), -1)
        sums = np.abs(rows.astype(np.int64)).sum(1) * 2**15
        largest = (sums + np.abs(self._data(bias, np.int32).astype(np.int64))).max()
        return bool(largest < 2**31)

    def _widen(self, tensor: Any) -> int:
        if tensor.type != self.schema.TensorType.INT32:
            return 0
        values = self._data(tensor, np.int32)
        self._store(tensor, values.astype(np.int64), self.schema.TensorType.INT64)
        return 2 * values.nbytes

    def _store(self, tensor: Any, values: np.ndarray, kind: int) -> None:
        """Give a tensor these values, in a buffer of its own."""
        buffer = self.schema.BufferT()
        buffer.Pack = aligned(self.schema, buffer)
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.buffer, tensor.type = len(self.model.buffers) - 1, kind

    def _data(self, tensor: Any, kind: Any) -> np.ndarray:
        return np.asarray(self.model.buffers[tensor.buffer].data, np.uint8).view(kind)

    def _readers(self) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for op in self.graph.operators:
            for place in op.inputs:
                found.setdefault(int(place), []).append(op)
        return found

    def _is_constant(self, place: int) -> bool:
        data = self.model.buffers[self.graph.tensors[place].buffer].data
        return data is not None and len(data) > 0

    def _is_mark(self, op: Any) -> bool:
        number = {"MUL": MARK, "ADD": ADDED}.get(self.kind(op))
        constants = [int(place) for place in op.inputs if self._is_constant(int(place))]
        if number is None or len(constants) != 1:
            return False
        tensor = self.graph.tensors[constants[0]]
        if tensor.type != self.schema.TensorType.FLOAT32:
            return False
        values = self._data(tensor, np.float32)
        return len(values) == 1 and bool(values[0] == np.float32(number))

    def _is_int16(self, place: int) -> bool:
        return bool(self.graph.tensors[place].type == self.schema.TensorType.INT16)

    def _scale(self, place: int) -> float:
        return float(self.graph.tensors[place].quantization.scale[0])

    def _wide_input(self, place: int, writers: dict[int, Any]) -> int | None:
        """The int16 tensor that a float one was dequantized from; a constant itself."""
        writer = writers.get(place)
        if writer is not None:
            source = int(writer.inputs[0])
            dequantizes = self.kind(writer) == "DEQUANTIZE" and self._is_int16(source)
            return source if dequantizes else None
        return place if self._is_constant(place) else None

    def _rounded(self, place: int) -> int:
        """The tensor itself, or a copy of float constants on the grid of 16 bits that their largest
        value needs; others may read the floats."""
        tensor = self.graph.tensors[place]
        if tensor.type != self.schema.TensorType.FLOAT32:
            return place
        values = self._data(tensor, np.float32)
        scale = max(float(np.abs(values).max()), 1e-12) / _LEVELS
        grid = self.schema.QuantizationParametersT()
        grid.scale, grid.zeroPoint = [scale], [0]
        made = self.schema.TensorT()
        made.shape, made.name, made.quantization = tensor.shape, tensor.name, grid
        integers = np.rint(values / scale).astype(np.int16)
        self._store(made, integers, self.schema.TensorType.INT16)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1
