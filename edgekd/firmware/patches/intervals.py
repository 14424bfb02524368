"""Which rows or columns of each tensor one patch of the output needs.

Rows ("Y") and columns ("X") are independent of each other, so each is worked out alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.kernels import lookup
from edgekd.firmware.kernels.copy import pads
from edgekd.firmware.windows import window

Interval = tuple[int, int]
"""From the first row or column to behind the last one."""

DIMENSION = {"Y": 1, "X": 2}
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
WINDOWED = (*CONVOLUTIONS, *POOLS)
BINARY = ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")
ELEMENTWISE = (*BINARY, *lookup.OPERATORS, "CONCATENATION")
PADS = ("PAD", "PADV2")
NEAREST = "RESIZE_NEAREST_NEIGHBOR"


@dataclass(frozen=True)
class Read:
    """What a node reads of an input along one axis, and how much padding it adds at both ends."""

    interval: Interval
    before: int = 0
    behind: int = 0


@dataclass(frozen=True)
class AxisPatch:
    """One patch along one axis: what is held of each tensor, by its index, and what each input of
    each node reads of it, by the numbers of both."""

    held: Mapping[int, Interval]
    reads: Mapping[tuple[int, int], Read]

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """How much is held of each tensor, and the padding of each input: equal for patches that
        differ in their place alone."""
        held = tuple(end - begin for begin, end in self.held.values())
        return held, *((one.before, one.behind) for one in self.reads.values())


@dataclass(frozen=True, eq=False)
class Axis:
    """All patches along one axis, in order."""

    patches: tuple[AxisPatch, ...]

    @cached_property
    def total(self) -> Mapping[int, int]:
        """The rows or columns of each tensor that the patches hold together, halos included."""
        return {index: sum(self._lengths(index)) for index in self.patches[0].held}

    @cached_property
    def most(self) -> Mapping[int, int]:
        """The most rows or columns of each tensor that a patch holds."""
        return {index: max(self._lengths(index)) for index in self.patches[0].held}

    def _lengths(self, index: int) -> list[int]:
        return [one.held[index][1] - one.held[index][0] for one in self.patches]

    @property
    def examples(self) -> "Axis":
        """One patch of each size."""
        return Axis(tuple({one.sizes: one for one in self.patches}.values()))

    @property
    def largest(self) -> int:
        """The place of the patch that holds the most."""
        sums = [sum(one.sizes[0]) for one in self.patches]
        return sums.index(max(sums))


def can_be_patched(node: Node) -> bool:
    """Whether each output pixel depends on a window of input pixels alone."""
    if node.kind not in (*WINDOWED, *ELEMENTWISE, *PADS, NEAREST) or len(node.outputs) != 1:
        return False
    output = node.output
    if len(output.shape) != 4 or output.shape[0] != 1:
        return False
    computed = [one for one in node.inputs if one is not None and one.values is None]
    if any(len(one.shape) != 4 or one.dtype != "int8" for one in computed) or not computed:
        return False
    if node.kind in WINDOWED:
        return computed == [node.inputs[0]]
    if node.kind == NEAREST:
        return bool(output.shape[1] // computed[0].shape[1])  # by whole factors, as it was lowered
    if node.kind in PADS:
        source = computed[0]
        around = pads(node, source)
        grown = tuple(s + b + e for s, (b, e) in zip(source.shape, around, strict=True))
        return grown == output.shape and around[0] == around[3] == (0, 0)
    if node.kind == "CONCATENATION" and (
        node.options.get("Axis") not in (3, -1) or len(computed) != len(node.inputs)
    ):
        return False
    constants = [one for one in node.inputs if one is not None and one.values is not None]
    vary = any(size != 1 for one in constants for size in one.shape[:-1])
    return not vary and {one.shape[1:3] for one in computed} == {output.shape[1:3]}


def axis_patch(nodes: Sequence[Node], axis: str, wanted: Interval) -> AxisPatch | None:
    """What is needed for these rows or columns of the last node's output; nothing if a node would
    see only padding, or if nothing reads its output."""
    held: dict[int, Interval] = {nodes[-1].output.index: wanted}
    reads: dict[tuple[int, int], Read] = {}
    for number in range(len(nodes) - 1, -1, -1):
        node = nodes[number]
        if node.output.index not in held:
            return None
        for place, array in enumerate(node.inputs):
            if array is None or array.values is not None:
                continue
            read = _read(node, axis, array, held[node.output.index])
            if read is None:
                return None
            reads[number, place] = read
            begin, end = held.get(array.index, read.interval)
            held[array.index] = min(begin, read.interval[0]), max(end, read.interval[1])
    return AxisPatch(held, reads)


def _read(node: Node, axis: str, array: Array, wanted: Interval) -> Read | None:
    if node.kind == NEAREST:
        factor = enlarged(node, axis)
        return Read((wanted[0] // factor, (wanted[1] - 1) // factor + 1))
    if node.kind in PADS:
        taps, dilation, stride = 1, 1, 1
        pad = pads(node, array)[DIMENSION[axis]][0]
    elif node.kind in WINDOWED:
        taps, dilation = _taps(node, axis)
        stride, pad = window(node, axis, array, node.output, taps, dilation)
    else:
        return Read(wanted)
    first = wanted[0] * stride - pad
    end = (wanted[1] - 1) * stride - pad + (taps - 1) * dilation + 1
    size = array.shape[DIMENSION[axis]]
    inside = max(first, 0), min(end, size)
    if inside[0] >= inside[1]:
        return None
    return Read(inside, inside[0] - first, end - inside[1])


def enlarged(node: Node, axis: str) -> int:
    """The whole factor by which a node repeats each row or column."""
    place = DIMENSION[axis]
    return node.output.shape[place] // node.computed(0).shape[place]


def _taps(node: Node, axis: str) -> tuple[int, int]:
    """The window's taps along the axis, and their dilation."""
    side = "H" if axis == "Y" else "W"
    if node.kind in POOLS:
        taps: int = node.option("FilterHeight" if axis == "Y" else "FilterWidth")
        return taps, 1
    weights = node.inputs[1]
    assert weights is not None
    return weights.shape[DIMENSION[axis]], node.option(f"Dilation{side}Factor")


def macs(node: Node, pixels: int) -> int:
    """The multiplications of a convolution for so many output pixels; 0 of any other node."""
    if node.kind not in CONVOLUTIONS:
        return 0
    weights = node.inputs[1]
    assert weights is not None
    taps = weights.shape[1] * weights.shape[2]
    depth = weights.shape[3] if node.kind == "CONV_2D" else 1
    return pixels * node.output.shape[3] * taps * depth
