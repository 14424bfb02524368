"""BATCH_MATMUL of two computed tensors, as attention has it."""

import math

from edgekd.firmware.accumulator import shared_multiplier
from edgekd.firmware.graph import Node
from edgekd.firmware.quantization import INT32_MAX, quantize_multiplier
from edgekd.firmware.step import Step, about

Shape = tuple[int, ...]


def lower(node: Node) -> list[Step]:
    """One call."""
    shapes = node.computed(0).shape, node.computed(1).shape, node.output.shape
    transposed = bool(node.option("AdjX", False)), bool(node.option("AdjY", False))
    return [product(node, shapes, transposed)]


def product(node: Node, shapes: tuple[Shape, Shape, Shape], transposed: tuple[bool, bool]) -> Step:
    """The call for both inputs and the output, taken as matrices of these shapes; the inputs may be
    transposed."""
    a, c, output = node.computed(0), node.computed(1), node.output
    first, second, shape = shapes
    if not len(first) == len(second) == len(shape) >= 2:
        raise node.refuse(f"{a.shape} by {c.shape}")
    rows, depth = _matrix(first, transposed[0])
    other, columns = _matrix(second, transposed[1])
    if depth != other or shape[-2:] != (rows, columns):
        raise node.refuse(f"{a.shape} by {c.shape} is not {output.shape}")
    if depth * 255 * 255 > INT32_MAX:
        raise node.refuse("its sums do not fit into 32 bits")
    multiplier, shift = quantize_multiplier(shared_multiplier(a, c, output))
    a_row, a_step = _strides(first, transposed[0])
    c_step, c_column = _strides(second, transposed[1])
    fields = {
        "batches": math.prod(shape[:-2]),
        "rows": rows,
        "columns": columns,
        "depth": depth,
        "a_batch": _batch_stride(node, first, shape),
        "a_row": a_row,
        "a_step": a_step,
        "c_batch": _batch_stride(node, second, shape),
        "c_column": c_column,
        "c_step": c_step,
        "a_offset": -a.zero_point,
        "c_offset": -c.zero_point,
        "multiplier": multiplier,
        "shift": shift,
        "output_offset": output.zero_point,
    }
    return Step("batch_matmul", fields, (a, c), output, about(node, a, c), needs=("requantize",))


def _matrix(shape: Shape, is_transposed: bool) -> tuple[int, int]:
    """Its rows and columns as they are multiplied."""
    rows, columns = shape[-2:]
    return (columns, rows) if is_transposed else (rows, columns)


def _strides(shape: Shape, is_transposed: bool) -> tuple[int, int]:
    """From row to row and from column to column."""
    return (1, shape[-1]) if is_transposed else (shape[-1], 1)


def _batch_stride(node: Node, shape: Shape, made: Shape) -> int:
    """From one matrix to the next; 0 if all batches have the same one."""
    if math.prod(shape[:-2]) == 1:
        return 0
    if shape[:-2] != made[:-2]:
        raise node.refuse(f"matrices {shape} that are repeated over some batches")
    return shape[-2] * shape[-1]


OPERATORS = {"BATCH_MATMUL": lower}
