"""Weighted layers as tensor expressions, with their weights packed for the register tile.

Convolutions are NHWC. A packed weight is (o, ..., i): channel blocks outermost, so that a tile
reads its weights in a row. Channels, rows and columns that the tile does not divide are computed
with zero weights or padding and cropped.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgekd.backends.tvm.tile import Tile
from edgekd.backends.tvm.tiled_sum import CROP, PAD, SUM, note


@dataclass(frozen=True)
class Layer:
    """A convolution's geometry; a linear layer is one of 1x1 on a (1, rows) image.

    `input` is (n, h, w, c); `kernel` is (kh, kw); `padding` is (top, left, bottom, right).
    """

    kind: Literal["convolution", "depthwise", "grouped", "linear"]
    input: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    dtype: str = "float32"

    @property
    def output(self) -> tuple[int, int]:
        """The output's height and width."""
        _, h, w, _ = self.input
        top, left, bottom, right = self.padding
        height = (h + top + bottom - self._reach(0)) // self.stride[0] + 1
        width = (w + left + right - self._reach(1)) // self.stride[1] + 1
        return height, width

    def _reach(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    @property
    def multiply_adds(self) -> int:
        """Multiply-accumulates of one inference."""
        height, width = self.output
        taps = self.kernel[0] * self.kernel[1] * self.input[3] // self.groups
        return self.input[0] * height * width * self.channels * taps

    def padded(self, tile: Tile) -> tuple[int, int, int, int]:
        """Rows and columns that the tiles compute, and those of the input that they read."""
        height = -(-self.output[0] // tile.rows) * tile.rows
        width = -(-self.output[1] // tile.columns) * tile.columns
        reads = (height - 1) * self.stride[0] + self._reach(0)
        across = (width - 1) * self.stride[1] + self._reach(1)
        return height, width, reads, across


def pack(layer: Layer, weight: np.ndarray, tile: Tile) -> np.ndarray:
    """HWIO weights as (o, kh, kw, ic, i), or (o, kh, kw, i) for a depthwise layer."""
    kh, kw, inputs, _ = weight.shape
    groups = layer.groups if layer.kind == "grouped" else 1
    each = layer.channels // groups
    blocks = -(-each // tile.block)
    parts = weight.reshape(kh, kw, inputs, groups, each)
    parts = np.pad(parts, [(0, 0)] * 4 + [(0, blocks * tile.block - each)])
    parts = parts.reshape(kh, kw, inputs, groups * blocks, tile.block)
    packed = np.ascontiguousarray(parts.transpose(3, 0, 1, 2, 4))
    return packed[:, :, :, 0] if layer.kind == "depthwise" else packed


def expression(layer: Layer, tile: Tile, data: Any, packed: Any) -> Any:
    """The layer on `data` (n, h, w, c) and a packed weight: (n, height, width, channels)."""
    source = _padded_input(layer, tile, data)
    if layer.kind == "depthwise":
        sums = _depthwise(layer, tile, source, packed)
    else:
        sums = _convolution(layer, tile, source, packed)
    return _cropped(layer, tile, sums)


def linear_expression(layer: Layer, tile: Tile, rank: int, data: Any, packed: Any) -> Any:
    """`data` (rows, inputs), or (batch, rows, inputs) for `rank` 3, times a packed weight."""
    from tvm import te, tirx

    batch, _, rows, inputs = layer.input
    _, width, _, _ = layer.padded(tile)
    blocks, _, _, _, lanes = (int(size) for size in packed.shape)
    k = te.reduce_axis((0, inputs), "k")

    def at(n: Any, row: Any, column: Any) -> Any:
        return data[n, row, column] if rank == 3 else data[row, column]

    if width > rows:
        zero = tirx.const(0, data.dtype)
        padded = te.compute(
            (batch, width, inputs),
            lambda n, m, j: tirx.if_then_else(m < rows, at(n, m, j), zero),
            name=PAD,
        )
    sums = te.compute(
        (batch, 1, width, blocks, lanes),
        lambda n, _, m, o, i: te.sum(
            (padded[n, m, k] if width > rows else at(n, m, k)) * packed[o, 0, 0, k, i], axis=[k]
        ),
        name=SUM,
        attrs=note(tile),
    )
    if rank == 3:
        return te.compute(
            (batch, rows, layer.channels),
            lambda n, m, c: sums[n, 0, m, c // lanes, c % lanes],
            name=CROP,
        )
    return te.compute(
        (rows, layer.channels), lambda m, c: sums[0, 0, m, c // lanes, c % lanes], name=CROP
    )


def _padded_input(layer: Layer, tile: Tile, data: Any) -> Any:
    from tvm import te, tirx

    n, h, w, c = layer.input
    top, left, _, _ = layer.padding
    _, _, reads, across = layer.padded(tile)
    deep = -(-c // tile.block) * tile.block if layer.kind == "depthwise" else c
    if not (top or left or reads > h or across > w or deep > c):
        return data

    def value(b: Any, y: Any, x: Any, k: Any) -> Any:
        inside = [y >= top, y < top + h, x >= left, x < left + w]
        if deep > c:
            inside.append(k < c)
        return tirx.if_then_else(
            tirx.all(*inside), data[b, y - top, x - left, k], tirx.const(0, data.dtype)
        )

    return te.compute((n, max(reads, h), max(across, w), deep), value, name=PAD)


def _convolution(layer: Layer, tile: Tile, source: Any, packed: Any) -> Any:
    from tvm import te

    height, width, _, _ = layer.padded(tile)
    blocks, kh, kw, inputs, lanes = (int(size) for size in packed.shape)
    each = blocks // layer.groups
    ry = te.reduce_axis((0, kh), "ry")
    rx = te.reduce_axis((0, kw), "rx")
    rc = te.reduce_axis((0, inputs), "rc")
    (sy, sx), (dy, dx) = layer.stride, layer.dilation

    def value(n: Any, y: Any, x: Any, o: Any, i: Any) -> Any:
        channel = rc if layer.groups == 1 else o // each * inputs + rc
        left = source[n, y * sy + ry * dy, x * sx + rx * dx, channel]
        return te.sum(left * packed[o, ry, rx, rc, i], axis=[ry, rx, rc])

    return te.compute(
        (layer.input[0], height, width, blocks, lanes), value, name=SUM, attrs=note(tile)
    )


def _depthwise(layer: Layer, tile: Tile, source: Any, packed: Any) -> Any:
    from tvm import te

    height, width, _, _ = layer.padded(tile)
    blocks, kh, kw, lanes = (int(size) for size in packed.shape)
    ry = te.reduce_axis((0, kh), "ry")
    rx = te.reduce_axis((0, kw), "rx")
    (sy, sx), (dy, dx) = layer.stride, layer.dilation

    def value(n: Any, y: Any, x: Any, o: Any, i: Any) -> Any:
        left = source[n, y * sy + ry * dy, x * sx + rx * dx, o * lanes + i]
        return te.sum(left * packed[o, ry, rx, i], axis=[ry, rx])

    return te.compute(
        (layer.input[0], height, width, blocks, lanes), value, name=SUM, attrs=note(tile)
    )


def _cropped(layer: Layer, tile: Tile, sums: Any) -> Any:
    """Back to one channel axis. A grouped layer's block divides its group, so o = c / block."""
    from tvm import te

    block = tile.block
    return te.compute(
        (layer.input[0], *layer.output, layer.channels),
        lambda n, y, x, c: sums[n, y, x, c // block, c % block],
        name=CROP,
    )
