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
