"""Operators of two tensors element by element, with broadcasting; kernels/pairs.c has the loops."""

from edgekd.firmware.graph import Array
from edgekd.firmware.strides import broadcast, merged

NEEDS = ("inlining", "pairs")
LOOPS = 4


def pairs(a: Array, b: Array, output: Array) -> dict[str, list[int]]:
    """The loops over both inputs. Raises `ValueError` if they do not broadcast to the output."""
    steps = broadcast(a.shape, output.shape), broadcast(b.shape, output.shape)
    shape, (first, second) = merged(output.shape, steps, LOOPS)
    check_cover((a, b), output)
    return {"pairs.shape": shape, "pairs.a_stride": first, "pairs.b_stride": second}


def check_cover(inputs: tuple[Array, ...], output: Array) -> None:
    """Raises `ValueError` if there is a dimension in which no input has the output's size."""
    sizes = zip(*(_tops(one, output) for one in inputs), strict=True)
    if not all(any(has_size) for has_size in sizes):
        raise ValueError("no input has the output's shape")


def _tops(one: Array, output: Array) -> list[bool]:
    """Whether a tensor has the output's size, for each dimension."""
    full = (1,) * (len(output.shape) - len(one.shape)) + one.shape
    return [size == wanted for size, wanted in zip(full, output.shape, strict=True)]


def in_place_of(a: Array, b: Array, output: Array) -> tuple[int, ...]:
    """The inputs that are read element by element where the output is written."""
    return tuple(n for n, one in enumerate((a, b)) if one.elements == output.elements)
