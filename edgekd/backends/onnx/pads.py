"""Paddings of the integers themselves. ONNX Runtime fuses the quantize and dequantize operators
around most operators that only move values, but around a Pad it leaves them, and pads floats."""

from typing import Any

import numpy as np

from edgekd.backends.onnx.lookups import add_constant, drop_unused, merge_quantizes


def pad_integers(model: Any) -> None:
    """Let every Pad between two equal grids pad integers, with the number that stands for its
    value."""
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    ends = {value.name for value in model.graph.output}
    pads = [node for node in model.graph.node if node.op_type == "Pad"]
    for number, node in enumerate(pads):
        value = _value(node, constants)
        before = _before(model.graph, node)
        readers = [each for each in model.graph.node if node.output[0] in each.input]
        grids = [_grid(each, constants) for each in (before, *readers)]
        if value is None or not readers or None in grids or len(set(grids)) != 1:
            continue
        if node.output[0] in ends or any(each.op_type != "QuantizeLinear" for each in readers):
            continue
        assert before is not None
        scale, zero = (constants[name] for name in before.input[1:3])
        limits = np.iinfo(zero.dtype)
        integer = int(np.rint(value / scale)) + int(zero)
        filled = np.array(np.clip(integer, limits.min, limits.max), zero.dtype)
        constant = add_constant(model, f"pad{number}", filled)
        node.input[:] = [before.input[0], node.input[1], constant, *node.input[3:]]
        node.output[0] = merge_quantizes(model.graph, readers)
    drop_unused(model)


def _value(node: Any, constants: dict[str, Any]) -> float | None:
    """The number that a Pad fills in, None where that is not a constant. Modes that repeat values
    don't read it."""
    if len(node.input) < 3 or not node.input[2]:
        return 0.0
    value = constants.get(node.input[2])
    return None if value is None else float(np.reshape(value, -1)[0])


def _before(graph: Any, node: Any) -> Any | None:
    """The dequantize operator whose result a Pad reads."""
    writers = [each for each in graph.node if node.input[0] in each.output]
    return writers[0] if writers and writers[0].op_type == "DequantizeLinear" else None


def _grid(node: Any, constants: dict[str, Any]) -> tuple[float, int, str] | None:
    """The scale, the zero point and the type of a quantize or dequantize operator."""
    if node is None or len(node.input) < 3 or any(key not in constants for key in node.input[1:3]):
        return None
    scale, zero = (constants[key] for key in node.input[1:3])
    return (float(scale), int(zero), str(zero.dtype)) if np.ndim(scale) == 0 else None
