"""Merges parallel branches whose sum is one convolution, as in RepVGG, MobileOne and FastViT.

Convolutions of the same input with the same stride are summed by adding their kernels, the smaller
one padded with zeros, and a batch norm of the input is a convolution by the identity (Ding et al.
2021, "RepVGG", section 3.3). The sum is the same up to the order of additions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by
from edgekd.quant.norms import norm_constants

aten = torch.ops.aten


@dataclass(frozen=True)
class _Branch:
    """A convolution of `source`, its kernel (out, in / groups, height, width) and bias (out,)."""

    source: fx.Node
    kernel: Tensor
    bias: Tensor
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    groups: int = 1


def merge_branches(graph: fx.GraphModule) -> None:
    """Replace each sum of two such branches, of which nothing else is read, by one convolution."""
    _drop_zeros(graph)
    for node in list(graph.graph.nodes):
        if node.target not in (aten.add.Tensor, aten.add_.Tensor) or node.kwargs:
            continue
        first, second = (_branch(graph, each, node) for each in node.args[:2])
        merged = None if first is None or second is None else _sum(first, second)
        if merged is not None:
            _insert(graph, node, merged)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _drop_zeros(graph: fx.GraphModule) -> None:
    """Leave out sums with the number 0, with which loops over branches begin."""
    for node in list(graph.graph.nodes):
        if node.target not in (aten.add.Tensor, aten.add_.Tensor) or node.kwargs:
            continue
        value, other = node.args
        if isinstance(other, int | float) and other == 0 and _is_alike(value, node):
            replace_by(node, value)


def _is_alike(value: Any, node: fx.Node) -> bool:
    """Whether a sum has the type of its first value, which a number of another type may change."""
    return isinstance(value, fx.Node) and value.meta["val"].dtype == node.meta["val"].dtype


def _branch(graph: fx.GraphModule, node: Any, reader: fx.Node) -> _Branch | None:
    """The branch that ends with `node`, if `reader` alone reads it."""
    if not isinstance(node, fx.Node) or list(node.users) != [reader]:
        return None
    if node.target is aten.batch_norm.default:
        return _identity(graph, node)
    if node.target is not aten.conv2d.default:
        return None
    arguments: tuple[Any, ...] = node.args
    defaults = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
    everything: tuple[Any, ...] = (*arguments, *defaults[len(arguments) :])
    source, weight, bias, stride, padding, dilation, groups = everything
    constant = is_constant(weight) and (bias is None or is_constant(bias))
    if not constant or set(dilation) != {1}:
        return None
    kernel = constant_of(graph, weight).detach()
    shift = kernel.new_zeros(len(kernel)) if bias is None else constant_of(graph, bias).detach()
    steps, pads = (tuple(list(each) * (2 // len(each))) for each in (stride, padding))
    return _Branch(source, kernel, shift, steps, pads, groups)


def _identity(graph: fx.GraphModule, node: fx.Node) -> _Branch | None:
    """A batch norm of images as a depthwise convolution."""
    source: Any = node.args[0]
    constants = norm_constants(graph, node)
    if constants is None or source.meta["val"].dim() != 4:
        return None
    scale, shift = constants
    return _Branch(source, scale.reshape(-1, 1, 1, 1), shift, groups=len(scale))


def _sum(first: _Branch, second: _Branch) -> _Branch | None:
    """Both branches as one; None if they read different places of the input."""
    if first.kernel.shape[2:] < second.kernel.shape[2:]:
        first, second = second, first
    groups = min(first.groups, second.groups)
    first, second = _regrouped(first, groups), _regrouped(second, groups)
    margins = [a - b for a, b in zip(first.padding, second.padding, strict=True)]
    sizes = zip(first.kernel.shape[2:], second.kernel.shape[2:], strict=True)
    aligned = all(a - b == 2 * more >= 0 for (a, b), more in zip(sizes, margins, strict=True))
    alike = first.source is second.source and first.stride == second.stride
    if not (alike and aligned and first.groups == second.groups):
        return None
    if first.kernel.shape[:2] != second.kernel.shape[:2]:
        return None
    rows, columns = margins
    padded = nn.functional.pad(second.kernel, (columns, columns, rows, rows))
    return _Branch(
        first.source,
        first.kernel + padded,
        first.bias + second.bias,
        first.stride,
        first.padding,
        groups,
    )


def _regrouped(branch: _Branch, groups: int) -> _Branch:
    """A depthwise branch with fewer groups, whose kernels are zero for all channels but one."""
    channels = len(branch.kernel)
    if branch.groups == groups or branch.groups != channels or channels % groups:
        return branch
    inner = channels // groups
    one = torch.eye(inner).repeat(groups, 1)[:, :, None, None].to(branch.kernel.dtype)
    bias, stride, padding = branch.bias, branch.stride, branch.padding
    return _Branch(branch.source, one * branch.kernel, bias, stride, padding, groups)


def _insert(graph: fx.GraphModule, node: fx.Node, branch: _Branch) -> None:
    layer: Any = node.args[0]
    like: Any = layer if layer.target is aten.conv2d.default else node.args[1]
    with graph.graph.inserting_before(node):
        weight = insert_constant(graph, f"{node.name}_weight", nn.Parameter(branch.kernel), node)
        bias = insert_constant(graph, f"{node.name}_bias", nn.Parameter(branch.bias), node)
        window = (list(branch.stride), list(branch.padding), [1, 1], branch.groups)
        merged = insert_call(
            graph, aten.conv2d.default, (branch.source, weight, bias, *window), like
        )
    replace_by(node, merged)
