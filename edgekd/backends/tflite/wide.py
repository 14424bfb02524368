"""Biases of layers with 16-bit activations: their kernels sum in 64 bits, and the converter writes
32."""

from typing import Any

import numpy as np

from edgekd.formats.tflite_metadata import aligned, packed, unpacked


def with_wide_biases(content: bytes) -> bytes:
    """The same file with int64 biases where a layer reads int16; the very bytes if there are
    none."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    layers = {
        schema.BuiltinOptions.Conv2DOptions,
        schema.BuiltinOptions.DepthwiseConv2DOptions,
        schema.BuiltinOptions.FullyConnectedOptions,
    }
    grown = 0
    for graph in model.subgraphs:
        for op in graph.operators:
            if op.builtinOptionsType not in layers or len(op.inputs) < 3 or op.inputs[2] < 0:
                continue
            if graph.tensors[op.inputs[0]].type == schema.TensorType.INT16:
                grown += _widen(schema, model, graph.tensors[op.inputs[2]])
    return packed(model, len(content) + grown) if grown else content


def _widen(schema: Any, model: Any, tensor: Any) -> int:
    """Store a bias in 64 bits, in a buffer of its own; the bytes that this takes."""
    if tensor.type != schema.TensorType.INT32:
        return 0
    values = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int32)
    buffer = schema.BufferT()
    buffer.Pack = aligned(schema, buffer)
    buffer.data = np.frombuffer(values.astype(np.int64).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.INT64
    return 2 * values.nbytes
