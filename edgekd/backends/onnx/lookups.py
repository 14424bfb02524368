"""Integer forms of functions for which ONNX Runtime has no integer kernel.

- A table of 256 values is a Gather, which reads the integers themselves as indices. It takes longer
  than the float operator does: about 3 ns a value on one core.
- A hyperbolic tangent is a sigmoid, which has an integer kernel: tanh(x) = 2 sigmoid(2 x) - 1. On
  the grid (1/128, z) it is the very integers of sigmoid(2 x) on the grid (1/256, z - 128).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.quant.tables import Table


def insert_tables(model: Any, tables: Sequence[Table]) -> None:
    """Replace each leaky ReLU that stands for a table, with the operators around it."""
    for number, table in enumerate(tables):
        node = next(each for each in model.graph.node if _slope(each) == table.mark)
        _insert(model, node, table, f"table{number}")
    drop_unused(model)


def tanh_by_sigmoid(model: Any) -> None:
    """Let ONNX Runtime compute each tanh between two grids with its sigmoid."""
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for number, node in enumerate([each for each in model.graph.node if each.op_type == "Tanh"]):
        grids = _around(model.graph, node)
        if grids is None or any(np.ndim(constants.get(name, [])) for name in _parameters(grids)):
            continue
        before, behind = grids
        if float(constants[behind.input[1]]) == 1 / 128:
            _halve(model, node, before, behind, constants, f"tanh{number}")
    drop_unused(model)


def _halve(
    model: Any, node: Any, before: Any, behind: Any, constants: dict[str, Any], name: str
) -> None:
    """The sigmoid of twice the value, whose integers are those of the tanh."""
    import onnx

    zero = constants[behind.input[2]]
    lower = int(zero) - 128
    if lower not in (-128, 0):
        return
    double = add_constant(model, f"{name}_scale", constants[before.input[1]] * np.float32(2))
    scale = add_constant(model, f"{name}_step", np.array(1 / 256, np.float32))
    point = add_constant(model, f"{name}_zero", np.array(lower, zero.dtype))
    wide = onnx.helper.make_node(
        "DequantizeLinear", [before.input[0], double, before.input[2]], [f"{name}_doubled"]
    )
    node.op_type, node.input[0] = "Sigmoid", wide.output[0]
    behind.input[1], behind.input[2] = scale, point
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, wide)


def _around(graph: Any, node: Any) -> tuple[Any, Any] | None:
    """The operators that dequantize what a node reads and quantize what it gives, if there is one
    of each."""
    before = [each for each in graph.node if node.input[0] in each.output]
    behind = [each for each in graph.node if node.output[0] in each.input]
    kinds = [each.op_type for each in (*before, *behind)]
    ends = {value.name for value in graph.output}
    if kinds != ["DequantizeLinear", "QuantizeLinear"] or node.output[0] in ends:
        return None
    return before[0], behind[0]


def _parameters(nodes: Sequence[Any]) -> list[str]:
    return [name for node in nodes for name in node.input[1:]]


def _insert(model: Any, node: Any, table: Table, name: str) -> None:
    import onnx

    graph, rank = model.graph, table.rank
    source = next(each for each in graph.node if node.input[0] in each.output).input[0]
    readers = [each for each in graph.node if node.output[0] in each.input]
    signed, channels = table.values.dtype == np.int8, len(table.values)
    wide, index, found = f"{name}_wide", f"{name}_index", merge_quantizes(graph, readers)
    lookup = [onnx.helper.make_node("Cast", [source], [wide], to=onnx.TensorProto.INT32)]
    values = table.values.reshape(-1)
    if channels > 1:
        offsets = np.arange(channels, dtype=np.int32) * 256 + 128 * signed
        first = add_constant(model, f"{name}_first", offsets.reshape(-1, *[1] * (rank - 2)))
        lookup.append(onnx.helper.make_node("Add", [wide, first], [index]))
    else:  # Negative integers index from the end.
        values, index = np.roll(values, -128) if signed else values, wide
    constant = add_constant(model, name, values)
    lookup.append(onnx.helper.make_node("Gather", [constant, index], [found]))
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for each in reversed(lookup):
        graph.node.insert(place, each)


def merge_quantizes(graph: Any, quantizes: Sequence[Any]) -> str:
    """Remove quantize operators that give the same; all that read them read the first one's result,
    whose name is returned, for another operator to write."""
    written: str = quantizes[0].output[0]
    others = {each.output[0]: written for each in quantizes[1:]}
    for each in quantizes:
        graph.node.remove(each)
    for each in graph.node:
        each.input[:] = [others.get(key, key) for key in each.input]
    return written


def add_constant(model: Any, name: str, value: np.ndarray) -> str:
    """Store a constant of the file under `name`, or a longer one that is free, and return that."""
    from onnx import numpy_helper

    taken = {tensor.name for tensor in model.graph.initializer}
    while name in taken:
        name += "_"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def _slope(node: Any) -> float | None:
    if node.op_type != "LeakyRelu":
        return None
    return next((float(each.f) for each in node.attribute if each.name == "alpha"), None)


def drop_unused(model: Any) -> None:
    """Remove dequantize operators that nothing reads any more, and unread constants."""
    graph = model.graph
    kept = {value.name for value in graph.output}
    used = kept | {name for node in graph.node for name in node.input}
    for node in [each for each in graph.node if each.op_type == "DequantizeLinear"]:
        if node.output[0] not in used:
            graph.node.remove(node)
    used = kept | {name for node in graph.node for name in node.input}
    for tensor in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(tensor)
