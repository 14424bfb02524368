"""Operators that compute or change shapes."""

from typing import Any

import numpy as np
import torch

from edgekd.network.onnx_module.table import Node, Value, operator
from edgekd.network.onnx_module.values import (
    DTYPES,
    integer,
    integers,
    is_sizes,
    size,
    sizes,
    tensor,
)


@operator("Shape")
def _shape(node: Node, x: Value) -> Value:
    found = sizes(list(x.shape))
    return found[node.get("start", 0) : node.get("end", None)]


@operator("Size")
def _count(node: Node, x: Value) -> Value:
    return size(x.numel())


@operator("Identity", "Dropout")
def _same(node: Node, x: Value, *rest: Value) -> Value:
    return x


@operator("Reshape")
def _reshape(node: Node, x: Value, wanted: Value) -> Value:
    if is_sizes(x) and len(integers(wanted)) < 2:
        return x.reshape(integers(wanted))
    x = tensor(x)
    to = integers(wanted)
    batch = node.get("fixed_batch", 0)
    if batch and to and isinstance(to[0], int) and to[0] == batch:  # for any other batch size
        to[0] = x.shape[0] if -1 in to[1:] else -1
    if not node.get("allowzero", 0):
        to = [x.shape[i] if isinstance(each, int) and each == 0 else each
              for i, each in enumerate(to)]  # fmt: skip
    return x.reshape(to)


@operator("Flatten")
def _flatten(node: Node, x: Value) -> Value:
    axis = node.get("axis", 1)
    if axis == 1 or axis - x.dim() == 1:
        return x.flatten(1) if x.dim() > 1 else x.reshape(-1, 1)
    axis = axis % (x.dim() + 1) if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis], dtype=int)) if axis else 1
    return x.reshape(rows, -1)


def _axes(node: Node, given: Value) -> list[int] | None:
    """Axes from the second input, or from the attribute of older opsets."""
    if given is not None:
        return integers(given)
    axes = node.get("axes")
    return None if axes is None else list(axes)


@operator("Unsqueeze")
def _unsqueeze(node: Node, x: Value, axes: Value = None) -> Value:
    places = _axes(node, axes) or []
    if is_sizes(x) and x.ndim == 0 and len(places) == 1:
        return x.reshape(-1)
    x = tensor(x)
    rank = x.dim() + len(places)
    for axis in sorted(each % rank for each in places):
        x = x.unsqueeze(axis)
    return x


@operator("Squeeze")
def _squeeze(node: Node, x: Value, axes: Value = None) -> Value:
    places = _axes(node, axes)
    if is_sizes(x):
        return x.reshape(()) if x.size == 1 else x
    if places is None:
        places = [axis for axis, length in enumerate(x.shape) if length == 1]
    return x.squeeze(tuple(places)) if places else x


@operator("Transpose")
def _transpose(node: Node, x: Value) -> Value:
    return x.permute(node.get("perm") or list(range(x.dim()))[::-1])


@operator("Concat")
def _concat(node: Node, *parts: Value) -> Value:
    if all(map(is_sizes, parts)):
        return sizes([each for part in parts for each in integers(part)])
    tensors, axis = [tensor(part) for part in parts], node.get("axis", 0)
    if node.get("fixed_batch", 0) == 1 and axis != 0 and tensors[0].dim() > 1:
        count = next((t.shape[0] for t in tensors if t.shape[0] != 1), 1)
        tensors = [t.expand(count, *t.shape[1:]) if t.shape[0] == 1 else t for t in tensors]
    return torch.cat(tensors, axis)


@operator("Split")
def _split(node: Node, x: Value, lengths: Value = None) -> Value:
    axis = node.get("axis", 0)
    parts = node.get("split") if lengths is None else integers(lengths)
    if is_sizes(x):
        return tuple(np.split(x, np.cumsum(parts)[:-1] if parts else node.outputs))
    if parts is None:
        each = -(-x.shape[axis] // (node.get("num_outputs") or node.outputs))
        return torch.split(x, each, axis)
    return torch.split(x, list(parts), axis)


@operator("Slice")
def _slices(
    node: Node, x: Value, starts: Value = None, ends: Value = None, axes: Value = None,
    steps: Value = None,
) -> Value:  # fmt: skip
    first = integers(starts) if starts is not None else list(node.get("starts"))
    last = integers(ends) if ends is not None else list(node.get("ends"))
    places = _axes(node, axes) or list(range(len(first)))
    strides = integers(steps) if steps is not None else [1] * len(first)
    if is_sizes(x):
        return x[_range(first[0], last[0], strides[0])]
    for axis, begin, end, step in zip(places, first, last, strides, strict=True):
        if step < 0:
            backwards = np.arange(x.shape[axis])[_range(begin, end, step)]
            x = x.index_select(axis, torch.from_numpy(backwards.copy()))
            continue
        whole = [slice(None)] * x.dim()
        whole[axis] = slice(begin, None if _far(end) else end, step)
        x = x[tuple(whole)]
    return x


def _range(begin: Any, end: Any, step: int) -> slice:
    if step < 0 and isinstance(end, int) and end < -(1 << 31):
        return slice(None if _far(begin) else begin, None, step)
    return slice(begin, None if _far(end) else end, step)


def _far(end: Any) -> bool:
    return isinstance(end, int) and end >= (1 << 31) - 1


@operator("Gather")
def _gather(node: Node, x: Value, index: Value) -> Value:
    axis = node.get("axis", 0)
    if is_sizes(x):
        places = integers(index)
        return size(x[places[0]]) if np.ndim(index) == 0 else sizes([x[i] for i in places])
    if is_sizes(index) and index.ndim == 0:
        return x.select(axis, integer(index))
    indices = tensor(index, x)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    picked = x.index_select(axis, indices.reshape(-1).long())
    axis = axis % x.dim()
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("Expand")
def _expand(node: Node, x: Value, wanted: Value) -> Value:
    x, to = tensor(x), integers(wanted)
    own = [1] * (len(to) - x.dim()) + list(x.shape)
    to = [1] * (len(own) - len(to)) + to
    return x.expand([have if isinstance(want, int) and want == 1 else want
                     for have, want in zip(own, to, strict=True)])  # fmt: skip


@operator("Tile")
def _tile(node: Node, x: Value, repeats: Value) -> Value:
    return tensor(x).repeat(integers(repeats))


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, wanted: Value) -> Value:
    value = node.get("value")
    to = integers(wanted)
    if value is None:
        return torch.zeros(to)
    if is_sizes(value):
        return sizes([integer(value)] * to[0]) if len(to) == 1 else tensor(value).expand(to)
    return torch.full(to, value.reshape(-1)[0].item(), dtype=value.dtype)


@operator("Range")
def _arange(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    ends = [integer(each) if is_sizes(each) else each.item() for each in (start, limit, delta)]
    if all(isinstance(each, int) for each in ends):
        return sizes(list(range(*ends)))
    return torch.arange(ends[0], ends[1], ends[2])


@operator("Cast")
def _cast(node: Node, x: Value) -> Value:
    to = DTYPES[node.get("to")]
    if is_sizes(x) and to in (torch.int64, torch.int32):
        return x
    return tensor(x).to(to)


@operator("CastLike")
def _cast_like(node: Node, x: Value, other: Value) -> Value:
    return tensor(x).to(tensor(other).dtype)
