"""Reshapes before operators whose inputs have fewer dimensions than what they give. The converter
drops them, since such operators broadcast; XNNPACK then counts dimensions differently and refuses
the file where axes are named behind it."""

from typing import Any

import numpy as np

from edgekd.backends.tflite.lookups import Writer
from edgekd.formats.tflite_metadata import packed, unpacked

_BROADCASTING = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")


def with_even_ranks(content: bytes) -> bytes:
    """The same file with each computed operand of a sum or a product in as many dimensions as the
    result; the very bytes if nothing is to be done."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    numbers = {getattr(schema.BuiltinOperator, name) for name in _BROADCASTING}
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    changed = 0
    for graph in model.subgraphs:
        operators: list[Any] = []
        for op in graph.operators:
            if kinds[op.opcodeIndex] in numbers:
                reshapes = _reshapes(schema, model, graph, op)
                operators += reshapes
                changed += len(reshapes)
            operators.append(op)
        graph.operators = operators
    return packed(model, len(content) + 1024 * changed) if changed else content


def _reshapes(schema: Any, model: Any, graph: Any, op: Any) -> list[Any]:
    """The operators that give an operator's inputs ones before their sizes; it reads them then."""
    dimensions = len(graph.tensors[op.outputs[0]].shape)
    added: list[Any] = []
    op.inputs = list(map(int, op.inputs))
    for place, number in enumerate(op.inputs):
        tensor = graph.tensors[number]
        missing = dimensions - len(tensor.shape)
        if not missing or model.buffers[tensor.buffer].data is not None:
            continue
        shape = [1] * missing + list(tensor.shape)
        writer = Writer(schema, model, graph)
        wanted = writer.constant(np.array(shape, np.int32), schema.TensorType.INT32, None)
        given = writer.like(tensor, shape, b"reshaped")
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        reshape = writer.operator("RESHAPE", [number, wanted], [given], "ReshapeOptions", options)
        added.append(reshape)
        op.inputs[place] = given
    return added
