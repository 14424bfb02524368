"""MEAN, SUM, REDUCE_MAX and REDUCE_MIN over any dimensions."""

import math
from collections.abc import Sequence

from edgekd.firmware.graph import Node
from edgekd.firmware.quantization import INT32_MAX, quantize_multiplier
from edgekd.firmware.step import Step, about
from edgekd.firmware.strides import contiguous, merged

LOOPS = 3


def _walks(node: Node) -> tuple[dict[str, list[int]], int]:
    """The loops over the dimensions that stay and over those that go, and the elements of these."""
    source, output = node.computed(0), node.output
    rank = len(source.shape)
    given = [int(axis) for axis in node.constant(1, "int32").reshape(-1)[: rank + 1]]
    if not given or any(not -rank <= axis < rank for axis in given):
        raise node.refuse(f"the axes {given} of {rank} dimensions")
    axes = sorted({axis % rank for axis in given})
    kept = [axis for axis in range(rank) if axis not in axes]
    sizes = [source.shape[axis] for axis in kept]
    if [size for size in output.shape if size > 1] != [size for size in sizes if size > 1]:
        raise node.refuse(f"{source.shape} reduced over {axes} is not {output.shape}")
    steps = contiguous(source.shape)
    fields: dict[str, list[int]] = {}
    for name, chosen in (("kept", kept), ("summed", axes)):
        shape, (strides,) = _loops(source.shape, steps, chosen)
        fields |= {name: shape, f"{name}_stride": strides}
    return fields, math.prod(source.shape[axis] for axis in axes)


def _loops(
    shape: Sequence[int], steps: Sequence[int], axes: Sequence[int]
) -> tuple[list[int], list[list[int]]]:
    return merged([shape[axis] for axis in axes], ([steps[axis] for axis in axes],), LOOPS)


def lower(node: Node) -> list[Step]:
    """One call."""
    source, output = node.computed(0), node.output
    walks, count = _walks(node)
    if count * 256 > INT32_MAX:
        raise node.refuse("its sums do not fit into 32 bits")
    multiplier, shift = quantize_multiplier(source.scale / output.scale)
    if node.kind == "MEAN":
        multiplier, shift = divided(multiplier, shift, count)
    return [
        Step(
            "reduce",
            {
                **walks,
                "zero_sum": source.zero_point * count,
                "multiplier": multiplier,
                "shift": shift,
                "output_offset": output.zero_point,
            },
            (source,),
            output,
            about(node, source),
            needs=("requantize",),
        )
    ]


def divided(multiplier: int, shift: int, count: int) -> tuple[int, int]:
    """The rescaling including 1 / count, rounded down as in TFLite."""
    more = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << more) // count, shift - more


def _extreme(node: Node) -> list[Step]:
    """One call, for a grid that stays."""
    source, output = node.computed(0), node.output
    walks, _ = _walks(node)
    if source.grid != output.grid:
        raise node.refuse("input and output have different scales")
    sign = 1 if node.kind == "REDUCE_MAX" else -1
    fields = {**walks, "sign": sign}
    return [Step("reduce_max", fields, (source,), output, about(node, source))]


OPERATORS = {"MEAN": lower, "SUM": lower, "REDUCE_MAX": _extreme, "REDUCE_MIN": _extreme}
