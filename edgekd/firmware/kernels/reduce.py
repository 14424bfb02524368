"""MEAN, SUM, REDUCE_MAX and REDUCE_MIN over neighbouring dimensions."""

import math

from edgekd.firmware.graph import Node
from edgekd.firmware.quantization import INT32_MAX, quantize_multiplier
from edgekd.firmware.step import Step, about


def _split(node: Node) -> tuple[int, int, int]:
    """(outer, count, inner): the input's elements before, in and after the dimensions that go."""
    source, output = node.computed(0), node.output
    rank = len(source.shape)
    given = [int(axis) for axis in node.constant(1, "int32").reshape(-1)[: rank + 1]]
    if not given or any(not -rank <= axis < rank for axis in given):
        raise node.refuse(f"the axes {given} of {rank} dimensions")
    axes = sorted({axis % rank for axis in given})
    wide = [axis for axis in axes if source.shape[axis] > 1] or axes[:1]
    begin, end = wide[0], wide[-1] + 1
    if any(source.shape[axis] > 1 and axis not in axes for axis in range(begin, end)):
        raise node.refuse(f"the axes {axes} of {source.shape} are not adjacent")
    outer, inner = math.prod(source.shape[:begin]), math.prod(source.shape[end:])
    count = math.prod(source.shape[begin:end])
    kept = [size for axis, size in enumerate(source.shape) if axis not in axes]
    if output.elements != outer * inner or [s for s in output.shape if s > 1] != [
        s for s in kept if s > 1
    ]:
        raise node.refuse(f"{source.shape} reduced over {axes} is not {output.shape}")
    return outer, count, inner


def lower(node: Node) -> list[Step]:
    """One call over (outer, count, inner)."""
    source, output = node.computed(0), node.output
    outer, count, inner = _split(node)
    if count * 256 > INT32_MAX:
        raise node.refuse("its sums do not fit into 32 bits")
    multiplier, shift = quantize_multiplier(source.scale / output.scale)
    if node.kind == "MEAN":
        multiplier, shift = divided(multiplier, shift, count)
    return [
        Step(
            "reduce",
            {
                "outer": outer,
                "count": count,
                "inner": inner,
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
    outer, count, inner = _split(node)
    if source.grid != output.grid:
        raise node.refuse("input and output have different scales")
    sign = 1 if node.kind == "REDUCE_MAX" else -1
    fields = {"outer": outer, "count": count, "inner": inner, "sign": sign}
    return [Step("reduce_max", fields, (source,), output, about(node, source))]


OPERATORS = {"MEAN": lower, "SUM": lower, "REDUCE_MAX": _extreme, "REDUCE_MIN": _extreme}
