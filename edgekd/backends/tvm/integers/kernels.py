"""The arithmetic of weighted layers as tensor expressions, from packed weights to the 8-bit result.

Sums are those of `edgekd.backends.tvm.layers` with one more reduction axis: the neighbouring inputs
that one dot product takes. The input's zero point is folded into the bias, so borders are filled
with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.backends.tvm.integers.dot import Dot
from edgekd.backends.tvm.integers.rounding import requantized
from edgekd.backends.tvm.integers.steps import Weighted
from edgekd.backends.tvm.layers import Layer
from edgekd.backends.tvm.tile import Tile
from edgekd.backends.tvm.tiled_sum import CROP, PAD, SUM, note

After = Callable[[Any, tuple[Any, ...]], Any]
"""What is computed from an integer of a layer's result and its index in memory."""


@dataclass(frozen=True)
class Form:
    """How a layer's inputs are walked. A `flat` one takes the taps of a row and their channels as
    one run of neighbouring bytes, because its channels do not fill dot products."""

    layer: Layer
    dot: Dot
    flat: bool

    @property
    def run(self) -> int:
        """Number of neighbouring inputs of a tap (of a row of taps in a flat layer)."""
        inputs = self.layer.input[3] // self.layer.groups
        return inputs * self.layer.kernel[1] if self.flat else inputs

    @property
    def quads(self) -> int:
        """Dot products that cover a run."""
        return -(-self.run // self.dot.quad)


def form_of(layer: Layer, dot: Dot, weight: np.ndarray) -> Form:
    """The form for a layer: plain products for depthwise layers, groups that don't fill dot
    products, and weights with which these would saturate."""
    each = layer.input[3] // layer.groups
    filled = each % dot.quad == 0 and layer.channels // layer.groups % dot.lanes == 0
    saturates = 2 * int(np.abs(weight.astype(np.int16)).max(initial=0)) > dot.most
    if layer.kind == "depthwise" or saturates or (layer.groups > 1 and not filled):
        return Form(layer, plain(dot), flat=False)
    return Form(layer, dot, flat=bool(each % dot.quad) and layer.dilation[1] == 1)


def plain(dot: Dot) -> Dot:
    """Products one by one in the same vectors."""
    return Dot("", 1, dot.lanes, dot.signed)


def packed_weight(form: Form, weight: np.ndarray, tile: Tile) -> np.ndarray:
    """(kh, kw, in, out) weights as (o, kh, kw, quads, block, quad); a flat layer has one column,
    and a depthwise one (o, kh, kw, block)."""
    layer, quad = form.layer, form.dot.quad
    kh, kw, _, channels = weight.shape
    groups = layer.groups if layer.kind == "grouped" else 1
    each = channels // groups
    blocks = -(-each // tile.block)
    parts: np.ndarray = weight.reshape(kh, 1 if form.flat else kw, -1, groups, each)
    missing = form.quads * quad - parts.shape[2]
    parts = np.pad(parts, [(0, 0)] * 2 + [(0, missing), (0, 0), (0, blocks * tile.block - each)])
    parts = parts.reshape(*parts.shape[:2], form.quads, quad, groups * blocks, tile.block)
    packed: np.ndarray = np.ascontiguousarray(parts.transpose(4, 0, 1, 2, 5, 3))
    if layer.kind != "depthwise":
        return packed
    return packed.reshape(*packed.shape[:3], tile.block)


def folded_bias(step: Weighted) -> np.ndarray:
    """The bias less what the input's zero point adds to every sum, as int32."""
    zero = step.source.grid.zero_point
    bias = step.bias - zero * step.weight.astype(np.int64).sum((0, 1, 2))
    limit = np.iinfo(np.int32)
    clipped: np.ndarray = np.clip(bias, limit.min, limit.max).astype(np.int32)
    return clipped


def factors(step: Weighted) -> np.ndarray:
    """For each channel the factor from the accumulator to the result's grid, as float32."""
    return (step.scale / step.result.grid.scale).astype(np.float32)


def weighted(
    form: Form, tile: Tile, step: Weighted, tensors: Sequence[Any], after: After | None = None
) -> Any:
    """The layer on data (n, h, w, c), or (rows, c) and (n, rows, c) for a linear one; `tensors` are
    these, the packed weight, the bias and the factors. `after` is computed from each result at its
    index in memory."""
    data, packed, bias, factor = tensors
    rank = len(data.shape)
    sums = _sums(form, tile, _source(form, tile, data, step.source.grid.zero_point), packed)

    def value(b: Any, y: Any, x: Any, c: Any) -> Any:
        """A grouped layer's block divides its group, so o = c / block."""
        total = sums[b, y, x, c // tile.block, c % tile.block] + bias[c]
        result = requantized(total, factor[c], step.result.grid)
        if after is None:
            return result
        return after(result, (b, y, x, c) if rank == 4 else (b, x, c)[3 - rank :])

    return _result(form.layer, value, rank)


def _source(form: Form, tile: Tile, data: Any, zero: int) -> Any:
    """A function of (n, y, x, channel) that reads the padded input; flat layers give the channel as
    the offset from the pixel's first byte."""
    from tvm import te, tirx

    layer = form.layer
    n, h, w, c = layer.input
    top, left, _, _ = layer.padding
    _, _, reads, across = layer.padded(tile)
    rank = len(data.shape)

    def at(b: Any, y: Any, x: Any, k: Any) -> Any:
        return data[(b, y, x, k)[4 - rank :]] if rank != 3 else data[b, x, k]

    deep = c
    if not form.flat:
        unit = tile.block if layer.kind == "depthwise" else form.dot.quad
        deep = -(-c // unit) * unit
    enough = reads <= h and across <= w and deep == c
    if not (top or left or form.flat) and enough:
        return at
    height, width = max(reads, h), max(across, w)
    fill = tirx.const(zero, data.dtype)

    def inside(b: Any, y: Any, x: Any, k: Any) -> Any:
        conditions = []
        if top or height > h:
            conditions += [y >= top, y < top + h]
        if left or width > w:
            conditions += [x >= left, x < left + w]
        if deep > c:
            conditions.append(k < c)
        value = at(b, y - top, x - left, k)
        return tirx.if_then_else(tirx.all(*conditions), value, fill) if conditions else value

    if not form.flat:
        padded = te.compute((n, height, width, deep), inside, name=PAD)
        return lambda b, y, x, k: padded[b, y, x, k]
    step = layer.stride[1]
    needed = (layer.padded(tile)[1] - 1) * step * c + form.quads * form.dot.quad
    length = max(width * c, needed)
    width = -(-length // c)
    rows = te.compute((n, height, length), lambda b, y, j: inside(b, y, j // c, j % c), name=PAD)
    return lambda b, y, x, k: rows[b, y, x * c + k]


def _sums(form: Form, tile: Tile, source: Any, packed: Any) -> Any:
    from tvm import te

    layer = form.layer
    height, width, _, _ = layer.padded(tile)
    blocks, kh, kw = (int(size) for size in packed.shape[:3])
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    ry, rx = te.reduce_axis((0, kh), "ry"), te.reduce_axis((0, kw), "rx")
    rk = te.reduce_axis((0, form.quads), "rk")
    rq = te.reduce_axis((0, form.dot.quad), "rq")
    each, inputs = blocks // layer.groups, layer.input[3] // layer.groups

    def depthwise(n: Any, y: Any, x: Any, o: Any, i: Any) -> Any:
        value = source(n, y * sy + ry * dy, x * sx + rx * dx, o * tile.block + i)
        product = value.astype("int32") * packed[o, ry, rx, i].astype("int32")
        return te.sum(product, axis=[ry, rx])

    def full(n: Any, y: Any, x: Any, o: Any, i: Any) -> Any:
        channel = rk * form.dot.quad + rq
        if layer.groups > 1:
            channel = o // each * inputs + channel
        value = source(n, y * sy + ry * dy, x * sx + rx * dx, channel)
        product = value.astype("int32") * packed[o, ry, rx, rk, i, rq].astype("int32")
        return te.sum(product, axis=[ry, rx, rk, rq])

    return te.compute(
        (layer.input[0], height, width, blocks, tile.block),
        depthwise if layer.kind == "depthwise" else full,
        name=SUM,
        attrs=note(tile) | {"edgekd_dot": form.dot.name},
    )


def _result(layer: Layer, value: Callable[..., Any], rank: int) -> Any:
    """The results with one channel axis, in as many dimensions as the data has."""
    from tvm import te

    n, (height, width), channels = layer.input[0], layer.output, layer.channels
    if rank == 2:
        return te.compute((width, channels), lambda x, c: value(0, 0, x, c), name=CROP)
    if rank == 3:
        return te.compute((n, width, channels), lambda b, x, c: value(b, 0, x, c), name=CROP)
    return te.compute((n, height, width, channels), value, name=CROP)
