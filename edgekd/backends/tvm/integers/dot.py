"""The processor's 8-bit dot product, as the schedules see it.

`quad` inputs are multiplied with the weights of `lanes` outputs and added to their int32 sums. A
processor without such an instruction has `quad` 1: products of one input, which LLVM vectorizes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dot:
    """`name` is that of the tensor intrinsic; empty for plain loops. `signed` says whether the
    inputs are int8 or uint8, and `most` bounds the sum of two neighbouring weights' absolute
    values, where the instruction adds two products in 16 bits with saturation."""

    name: str
    quad: int
    lanes: int
    signed: bool
    most: int = 256


DOTS = {
    dot.name: dot
    for dot in (
        Dot("vpdpbusd512", quad=4, lanes=16, signed=False),
        Dot("vpdpbusd256", quad=4, lanes=8, signed=False),
        Dot("pmaddubsw", quad=4, lanes=8, signed=False, most=128),
        Dot("sdot", quad=4, lanes=4, signed=True),
    )
}
"""The dot products with a tensor intrinsic, by name: AVX-512 VNNI, AVX-VNNI (or AVX-512 VNNI on
half-width vectors), AVX2 and Armv8.2."""


def dot_named(name: str, lanes: int, signed: bool) -> Dot:
    """The dot product of that name, or plain products in vectors of `lanes` int32 values."""
    return DOTS[name] if name else Dot("", 1, lanes, signed)
