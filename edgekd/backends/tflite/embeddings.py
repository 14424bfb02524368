"""Embeddings in a TFLite file: rows of integers instead of floats.

The converter writes an embedding as a lookup in a table of float32, whose rows are quantized next.
The table is on the same grid, so its integers can be gathered, and take a quarter of the bytes.
"""

from typing import Any

import numpy as np

from edgekd.backends.tflite.lookups import Writer
from edgekd.formats.tflite_metadata import aligned, packed, unpacked

CLOSE = 1e-2
"""By how much of a step a row may be off the grid, which floats are by rounding."""


def with_integer_tables(content: bytes) -> bytes:
    """The same file with each such table in integers; the very bytes if it has none."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    changed = 0
    for graph in model.subgraphs:
        for op in list(graph.operators):
            if _kind(schema, model, op) == "EMBEDDING_LOOKUP":
                changed += _gathered(schema, model, graph, op)
    return packed(model, len(content) + 1024 * changed) if changed else content


def _gathered(schema: Any, model: Any, graph: Any, lookup: Any) -> bool:
    """Make a gather of one lookup; False if what it gives is not quantized next."""
    ids, table = (int(place) for place in lookup.inputs)
    last, quantize = lookup, _only_reader(graph, lookup)
    if quantize is not None and _kind(schema, model, quantize) == "RESHAPE":
        last, quantize = quantize, _only_reader(graph, quantize)
    if quantize is None or _kind(schema, model, quantize) != "QUANTIZE":
        return False
    end = int(quantize.outputs[0])
    grid = graph.tensors[end].quantization
    alone = sum(table in map(int, op.inputs) for op in graph.operators) == 1
    if not alone or graph.tensors[end].type != schema.TensorType.INT8:
        return False
    if not _store_integers(schema, model, graph.tensors[table], grid):
        return False
    options, writer = schema.GatherOptionsT(), Writer(schema, model, graph)
    gather = writer.operator("GATHER", [table, ids], list(lookup.outputs), "GatherOptions", options)
    for place in lookup.outputs:
        graph.tensors[int(place)].type = schema.TensorType.INT8
        graph.tensors[int(place)].quantization = grid
    (gather if last is lookup else last).outputs = [end]
    kept = [op for op in graph.operators if op is not quantize]
    graph.operators = [gather if op is lookup else op for op in kept]
    return True


def _store_integers(schema: Any, model: Any, tensor: Any, grid: Any) -> bool:
    """Put a table on a grid; False if it is not on that grid already."""
    buffer = model.buffers[tensor.buffer]
    readers = sum(each.buffer == tensor.buffer for graph in model.subgraphs
                  for each in graph.tensors)  # fmt: skip
    if tensor.type != schema.TensorType.FLOAT32 or buffer.data is None or readers > 1:
        return False
    values = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), np.float32)
    steps = values / np.float32(grid.scale[0])
    integers = np.rint(steps)
    if np.abs(steps - integers).max() > CLOSE:
        return False
    stored = np.clip(integers + int(grid.zeroPoint[0]), -128, 127).astype(np.int8)
    buffer.data = stored.view(np.uint8)
    buffer.Pack = aligned(schema, buffer)
    tensor.type, tensor.quantization = schema.TensorType.INT8, grid
    return True


def _only_reader(graph: Any, op: Any) -> Any:
    """The operator that alone reads what another gives; None if there are several or it leaves the
    graph."""
    place = int(op.outputs[0])
    if place in map(int, graph.outputs):
        return None
    readers = [each for each in graph.operators if place in map(int, each.inputs)]
    return readers[0] if len(readers) == 1 else None


def _kind(schema: Any, model: Any, op: Any) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = vars(schema.BuiltinOperator)
    return next(str(name) for name, value in names.items() if value == number)
