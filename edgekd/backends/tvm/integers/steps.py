"""What the kernels compute, as values: one step for each quantized tensor of the graph.

Shapes, axes and windows are those of the graph (images with their channels second). A result's grid
may hold less of its range than the graph's: a clamp that was fused to the step.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekd.backends.tvm.integers.grid import Grid
from edgekd.backends.tvm.layers import Layer


@dataclass(frozen=True)
class Value:
    """A quantized tensor; `constant` are the integers of one that is known beforehand."""

    name: str
    shape: tuple[int, ...]
    grid: Grid
    constant: np.ndarray | None = None


@dataclass(frozen=True)
class Step:
    """One kernel: the tensor it computes, and the layer and operator that it stands for."""

    result: Value
    layer: str
    op: str


@dataclass(frozen=True)
class Quantized(Step):
    """The float tensor `source` on the result's grid."""

    source: str


@dataclass(frozen=True)
class Weighted(Step):
    """A convolution or a linear layer. `weight` is (kh, kw, in, out) and symmetric, `bias` is in
    steps of the accumulator, and `scale` is that of each channel's accumulator."""

    source: Value
    geometry: Layer
    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray

    def in_rows(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (1, rows, c) in which the kernel of a linear layer takes and gives sequences of
        `shape`, whichever dimension is the batch."""
        if self.geometry.kind != "linear" or len(shape) != 3:
            return shape
        return 1, shape[0] * shape[1], shape[2]


@dataclass(frozen=True)
class Table(Step):
    """A function of one value, as its 256 results, beginning with the least input."""

    source: Value
    entries: np.ndarray


@dataclass(frozen=True)
class Arithmetic(Step):
    """A sum, difference or product of two tensors, with NumPy's broadcasting."""

    left: Value
    right: Value
    kind: Literal["add", "sub", "mul"]


@dataclass(frozen=True)
class Joined(Step):
    """Tensors of one grid, one behind the other along an axis."""

    sources: tuple[Value, ...]
    axis: int


@dataclass(frozen=True)
class Pooled(Step):
    """The largest or the mean value of windows of an image (N, C, H, W). `counts_padding` says
    whether a mean divides by the whole window at the edges."""

    source: Value
    kind: Literal["max", "mean"]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    counts_padding: bool = True


@dataclass(frozen=True)
class Reduced(Step):
    """The mean, largest or least value over axes; the result's shape says if they are kept."""

    source: Value
    kind: Literal["mean", "max", "min"]
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Reshaped(Step):
    """The same numbers in another shape."""

    source: Value


@dataclass(frozen=True)
class Permuted(Step):
    """The axes in another order."""

    source: Value
    order: tuple[int, ...]


@dataclass(frozen=True)
class Sliced(Step):
    """Part of a tensor: where it begins and the step, for each axis. The result lacks the axis that
    was `selected` from."""

    source: Value
    begins: tuple[int, ...]
    steps: tuple[int, ...]
    selected: int | None = None


@dataclass(frozen=True)
class Padded(Step):
    """Zeros (the zero point) around a tensor: (before, after) for each axis."""

    source: Value
    widths: tuple[tuple[int, int], ...]
    fill: int


@dataclass(frozen=True)
class Multiplied(Step):
    """Products of matrices that are both activations: (..., m, k) times (..., k, n)."""

    left: Value
    right: Value
