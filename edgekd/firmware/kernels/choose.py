"""SELECT and SELECT_V2: one of two tensors on one grid by a mask, with broadcasting."""

from edgekd.firmware.graph import Node
from edgekd.firmware.pairs import LOOPS, check_cover
from edgekd.firmware.step import Step, about
from edgekd.firmware.strides import broadcast, merged


def lower(node: Node) -> list[Step]:
    """One call."""
    mask, a, b, output = node.mask(0), node.computed(1), node.computed(2), node.output
    if not a.grid == b.grid == output.grid:
        raise node.refuse("inputs and output have different scales")
    if node.kind == "SELECT" and mask.shape != output.shape:
        raise node.refuse(f"a mask of shape {mask.shape} for {output.shape}")
    inputs = (mask, a, b)
    check_cover(inputs, output)
    steps = [broadcast(one.shape, output.shape) for one in inputs]
    shape, strides = merged(output.shape, steps, LOOPS)
    names = ("mask_stride", "a_stride", "b_stride")
    fields = {"shape": shape, **dict(zip(names, strides, strict=True))}
    places = tuple(n for n, one in enumerate(inputs) if one.elements == output.elements)
    return [Step("choose", fields, inputs, output, about(node, *inputs), places)]


OPERATORS = {"SELECT": lower, "SELECT_V2": lower}
