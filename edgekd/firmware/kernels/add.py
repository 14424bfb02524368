"""ADD and SUB, with broadcasting."""

from typing import Any

from edgekd.firmware.accumulator import limits
from edgekd.firmware.graph import Array, Node
from edgekd.firmware.quantization import quantize_multiplier
from edgekd.firmware.step import Step, about
from edgekd.firmware.strides import broadcast, merged

LEFT_SHIFT = 20


def lower(node: Node) -> list[Step]:
    """One call: both inputs are rescaled to twice the larger scale, with 20 more bits."""
    a, b, output = node.computed(0), node.computed(1), node.output
    twice = 2 * max(a.scale, b.scale)
    real = twice / (2**LEFT_SHIFT * output.scale)
    if real >= 1:
        raise node.refuse(f"scales too different: {a.scale:g}, {b.scale:g} -> {output.scale:g}")
    fields: dict[str, Any] = walk(a, b, output)
    for name, one in (("a", a), ("b", b)):
        multiplier, shift = quantize_multiplier(one.scale / twice)
        fields[f"{name}_offset"] = -one.zero_point
        fields[f"{name}_multiplier"], fields[f"{name}_shift"] = multiplier, shift
    fields["sign"] = -1 if node.kind == "SUB" else 1
    fields["output_offset"] = output.zero_point
    fields["output_multiplier"], fields["output_shift"] = quantize_multiplier(real)
    return [
        Step(
            "add",
            fields | limits(node),
            (a, b),
            output,
            about(node, a, b),
            in_place_of(a, b, output),
            ("requantize",),
        )
    ]


def walk(a: Array, b: Array, output: Array) -> dict[str, list[int]]:
    """The loops over both inputs. Raises `ValueError` if they do not broadcast to the output."""
    steps = broadcast(a.shape, output.shape), broadcast(b.shape, output.shape)
    shape, first, second = merged(output.shape, *steps, 4)
    if any(1 not in pair for pair in zip(_tops(a, output), _tops(b, output), strict=True)):
        raise ValueError("neither input has the output's shape")
    return {"shape": shape, "a_stride": first, "b_stride": second}


def _tops(one: Array, output: Array) -> list[int]:
    """1 for each dimension in which a tensor has the output's size, else 0."""
    full = (1,) * (len(output.shape) - len(one.shape)) + one.shape
    return [int(size == wanted) for size, wanted in zip(full, output.shape, strict=True)]


def in_place_of(a: Array, b: Array, output: Array) -> tuple[int, ...]:
    """The inputs that are read element by element where the output is written."""
    return tuple(n for n, one in enumerate((a, b)) if one.elements == output.elements)


OPERATORS = {"ADD": lower, "SUB": lower}
