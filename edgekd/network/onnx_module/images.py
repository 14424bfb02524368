"""Convolutions, pooling, padding and resizing."""

import math
from typing import Any

import torch
from torch.nn import functional

from edgekd.network.onnx_module.table import Node, Value, operator
from edgekd.network.onnx_module.values import integers, numbers, tensor

CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def text(value: Any) -> str:
    """An attribute of text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def padding(node: Node, sizes: list[int], kernel: list[int]) -> tuple[list[int], list[int]]:
    """Before and behind each spatial dimension, for `pads` and for `auto_pad`."""
    rank, auto = len(kernel), text(node.get("auto_pad", "NOTSET"))
    if auto in ("NOTSET", "VALID", ""):
        pads = list(node.get("pads") or [0] * 2 * rank) if auto != "VALID" else [0] * 2 * rank
        return pads[:rank], pads[rank:]
    strides = node.get("strides") or [1] * rank
    dilations = node.get("dilations") or [1] * rank
    before, behind = [], []
    for length, width, step, apart in zip(sizes, kernel, strides, dilations, strict=True):
        whole = max((-(-length // step) - 1) * step + (width - 1) * apart + 1 - length, 0)
        less, more = whole // 2, whole - whole // 2
        before.append(less if auto == "SAME_UPPER" else more)
        behind.append(more if auto == "SAME_UPPER" else less)
    return before, behind


def padded(x: Any, before: list[int], behind: list[int], value: float = 0.0) -> Any:
    """The spatial dimensions padded with a constant."""
    pairs = [each for pair in zip(before[::-1], behind[::-1], strict=True) for each in pair]
    return functional.pad(x, pairs, value=value) if any(pairs) else x


@operator("Conv")
def _convolution(node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    kernel, rank = list(weight.shape[2:]), x.dim() - 2
    before, behind = padding(node, list(x.shape[2:]), kernel)
    if before != behind:
        x, before = padded(x, before, behind), [0] * rank
    strides, dilations = (node.get(key) or [1] * rank for key in ("strides", "dilations"))
    return CONVOLUTIONS[x.dim()](x, weight, bias, strides, before, dilations, node.get("group", 1))


@operator("MaxPool")
def _max_pool(node: Node, x: Value) -> Value:
    kernel = list(node.get("kernel_shape"))
    before, behind = padding(node, list(x.shape[2:]), kernel)
    if before != behind or any(2 * p > k for p, k in zip(before, kernel, strict=True)):
        x, before = padded(x, before, behind, -math.inf), [0] * len(kernel)
    functions: Any = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
    strides, dilations = (node.get(k) or [1] * len(kernel) for k in ("strides", "dilations"))
    ceil = bool(node.get("ceil_mode", 0))
    return functions[x.dim()](x, kernel, strides, before, dilations, ceil)


@operator("AveragePool")
def _average_pool(node: Node, x: Value) -> Value:
    kernel = list(node.get("kernel_shape"))
    before, behind = padding(node, list(x.shape[2:]), kernel)
    counted = bool(node.get("count_include_pad", 0))
    if before != behind:
        if not counted:
            ones = padded(torch.ones_like(x[:1, :1]), before, behind)
            share = _average(node, ones, kernel, [0] * len(kernel), True)
            return (
                _average(node, padded(x, before, behind), kernel, [0] * len(kernel), True) / share
            )
        x, before = padded(x, before, behind), [0] * len(kernel)
    return _average(node, x, kernel, before, counted)


def _average(node: Node, x: Any, kernel: list[int], pads: list[int], counted: bool) -> Any:
    functions: Any = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
    strides, ceil = node.get("strides") or [1] * len(kernel), bool(node.get("ceil_mode", 0))
    return functions[x.dim()](x, kernel, strides, pads, ceil, counted)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node, x: Value) -> Value:
    axes = list(range(2, x.dim()))
    if node.op == "GlobalMaxPool":
        return torch.amax(x, axes, True)
    return functional.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else torch.mean(x, axes, True)


@operator("Pad")
def _pad(
    node: Node, x: Value, pads: Value = None, value: Value = None, axes: Value = None
) -> Value:
    given = list(node.get("pads")) if pads is None else integers(pads)
    places = list(range(x.dim())) if axes is None else [a % x.dim() for a in integers(axes)]
    before, behind = [0] * x.dim(), [0] * x.dim()
    for place, axis in enumerate(places):
        before[axis], behind[axis] = given[place], given[place + len(places)]
    fill = node.get("value", 0.0) if value is None else numbers(value)[0]
    mode = text(node.get("mode", "constant"))
    if mode == "constant":
        return padded(x, before, behind, fill)
    first = next((i for i in range(x.dim()) if before[i] or behind[i]), x.dim())
    pairs = [e for i in range(x.dim() - 1, max(first, 1) - 1, -1) for e in (before[i], behind[i])]
    return functional.pad(x, pairs, {"edge": "replicate"}.get(mode, mode)) if pairs else x


@operator("Resize", "Upsample")
def _resize(
    node: Node, x: Value, roi: Value = None, scales: Value = None, wanted: Value = None
) -> Value:
    if node.op == "Upsample":
        scales = roi
    mode = text(node.get("mode", "nearest"))
    corners = text(node.get("coordinate_transformation_mode", "half_pixel"))
    if wanted is not None:
        to = integers(wanted)[2:]
    else:
        given = node.get("scales") if scales is None else numbers(scales)
        to = [math.floor(s * f) for s, f in zip(x.shape[2:], given[2:], strict=True)]
    if mode == "nearest":
        whole = all(want % have == 0 for want, have in zip(to, x.shape[2:], strict=True))
        if not whole and (corners, text(node.get("nearest_mode", "round_prefer_floor"))) != (
            "asymmetric", "floor",
        ):  # fmt: skip
            raise NotImplementedError(f"Resize to {to} by nearest, {corners}")
        return functional.interpolate(x, to, mode="nearest")
    names = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
    if corners not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotImplementedError(f"Resize with {corners}")
    return functional.interpolate(
        x, to, mode=names[mode][x.dim()], align_corners=corners == "align_corners"
    )


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Value) -> Value:
    block = node.get("blocksize")
    if text(node.get("mode", "DCR")) == "CRD":
        return functional.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Value) -> Value:
    block, (n, c, h, w) = node.get("blocksize"), x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


@operator("ConvTranspose")
def _transposed_convolution(node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    rank = x.dim() - 2
    strides, dilations = (node.get(key) or [1] * rank for key in ("strides", "dilations"))
    pads, extra = node.get("pads") or [0] * 2 * rank, node.get("output_padding") or [0] * rank
    if text(node.get("auto_pad", "NOTSET")) != "NOTSET" or node.get("output_shape"):
        raise NotImplementedError("ConvTranspose with auto_pad or output_shape")
    functions: Any = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d,
                      5: functional.conv_transpose3d}  # fmt: skip
    before, behind = list(pads[:rank]), list(pads[rank:])
    if before == behind:
        return functions[x.dim()](
            x, weight, bias, strides, before, extra, node.get("group", 1), dilations
        )
    y = functions[x.dim()](x, weight, bias, strides, 0, extra, node.get("group", 1), dilations)
    for axis, (less, more) in enumerate(zip(before, behind, strict=True), 2):
        y = y.narrow(axis, less, y.shape[axis] - less - more)
    return tensor(y)
