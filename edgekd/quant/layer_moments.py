"""The second moments of a layer's inputs, from which the error of its output follows for any
weight: |W' X - Y|^2 = tr(W' H W'^T) - 2 tr(W' C^T) + |Y|^2, with H = X X^T and C = Y X^T."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgekd.quant.channel_scaling import groups_of
from edgekd.values.tree import chunks

aten = torch.ops.aten

_MOST_COLUMNS = 2**24
"""The most numbers of columns that are held at once."""

_MOST_PRODUCTS = 2**36
"""About the most products that the moments of one layer may take. Of more columns than that every
other, third ... is used: neighbours in an image say much the same."""

_FEWEST_COLUMNS = 4096


@dataclass(frozen=True, eq=False)
class Moments:
    """`inputs` H (g, k, k), `outputs` C (g, o / g, k) and `energy` |Y|^2, all divided by the number
    of columns."""

    inputs: Tensor
    outputs: Tensor
    energy: float

    def error(self, weight: Tensor) -> Tensor:
        """The squared error of a weight (o, k), summed over outputs, the mean over columns."""
        apart = weight.reshape(len(self.inputs), -1, weight.shape[1])
        with torch.no_grad():
            product = apart @ self.inputs
            value = (apart * (product - 2.0 * self.outputs)).sum() + self.energy
            slope = 2.0 * (product - self.outputs)
        if not weight.requires_grad:
            return value
        # The gradient is known: no second product is needed for it.
        linear = (apart * slope).sum()
        return value + (linear - linear.detach())


def moments_of(layer: fx.Node, shape: torch.Size, x: Tensor, y: Tensor) -> Moments:
    """The moments of a layer with a weight of `shape` on inputs `x`, for outputs `y` that it is to
    have without its bias; both (N, ...)."""
    groups = groups_of(layer)
    size = shape[1:].numel()
    inputs = torch.zeros(groups, size, size)
    outputs = torch.zeros(groups, shape[0] // groups, size)
    number, energy = 0, 0.0
    columns_each = y[0].numel() // shape[0]
    most = max(_FEWEST_COLUMNS, _MOST_PRODUCTS // size**2)
    stride = max(1, len(x) * columns_each // most)
    each = max(1, _MOST_COLUMNS // max(1, columns_each * size * groups))
    for part, wanted in zip(chunks(x, each), chunks(y, each), strict=True):
        columns = columns_of(layer, shape, part)[..., ::stride]
        rows = _rows(layer, wanted, groups)[..., ::stride]
        inputs += columns @ columns.transpose(1, 2)
        outputs += rows @ columns.transpose(1, 2)
        energy += float(rows.double().square().sum())
        number += columns.shape[2]
    number = max(1, number)
    return Moments(inputs / number, outputs / number, energy / number)


def columns_of(layer: fx.Node, shape: torch.Size, x: Tensor) -> Tensor:
    """(g, k, n): what the weights of each group are multiplied with, for n outputs."""
    if layer.target is aten.linear.default:
        return x.reshape(-1, shape[1]).t()[None]
    arguments: tuple[Any, ...] = (*layer.args, *[None] * 7)
    groups, dims = groups_of(layer), len(shape) - 2
    stride, dilation = (_sizes(arguments[place], dims, 1) for place in (3, 5))
    kernel = tuple(shape[2:])
    padding = arguments[4]
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        ends = [(total // 2, total - total // 2) for total in totals]
        x, padding = F.pad(x, [end for pair in reversed(ends) for end in pair]), None
    pads = _sizes(None if padding == "valid" else padding, dims, 0)
    if dims == 1:
        x, kernel, stride = x.unsqueeze(2), (1, *kernel), (1, *stride)
        dilation, pads = (1, *dilation), (0, *pads)
    columns = F.unfold(x, kernel, dilation=dilation, padding=pads, stride=stride)
    return columns.view(len(x), groups, -1, columns.shape[2]).movedim(0, 2).flatten(2)


def _sizes(value: Any, dims: int, default: int) -> tuple[int, ...]:
    if value is None:
        return (default,) * dims
    sizes = [int(value)] if isinstance(value, int) else [int(each) for each in value]
    return tuple(sizes * dims if len(sizes) == 1 else sizes)


def _rows(layer: fx.Node, y: Tensor, groups: int) -> Tensor:
    """(g, o / g, n) of a layer's outputs."""
    if layer.target is aten.linear.default:
        return y.reshape(-1, y.shape[-1]).t()[None]
    flat = y.movedim(1, 0).flatten(1)
    return flat.view(groups, -1, flat.shape[1])
