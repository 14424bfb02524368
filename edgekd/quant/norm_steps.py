"""Normalizations written out in operators with integer kernels, for files without any float.

Each step is rounded to eight bits, so this costs accuracy, and nothing here is done unless the user
asks for it (`strict`). What keeps the cost small: means are products with a constant row, and sums
of squares are products of a row with itself, so both are summed exactly in 32 bits and rounded
once; the root is a table of 256 values.

    layer norm (Ba et al. 2016)          d = x - mean(x), y = d / sqrt(mean(d^2) + epsilon) g + b
    RMS norm (Zhang and Sennrich 2019)   the same with d = x
    group norm (Wu and He 2018), instance norm (Ulyanov et al. 2016)   rows of a group, a channel
    log-softmax                          d = x - max(x), y = d - log(sum(exp(d)))
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from edgekd.quant import ops
from edgekd.quant.chains import IN_INTEGERS
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by

aten = torch.ops.aten

_EPSILON = 1e-5


def write_out_norms(graph: fx.GraphModule) -> None:
    """Rewrite every normalization of a float graph, and let the parts of those that are written out
    already compute in integers."""
    for node in list(graph.graph.nodes):
        rewrite = _REWRITES.get(node.target) if node.op == "call_function" else None
        if rewrite is None:
            continue
        with graph.graph.inserting_before(node):
            replacement = rewrite(graph, node)
        if replacement is not None:
            replace_by(node, replacement)
    for node in graph.graph.nodes:
        if node.target in ops.SENSITIVE:
            node.meta[IN_INTEGERS] = True
    graph.graph.eliminate_dead_code()
    graph.recompile()


class _Steps:
    """Writes steps in the place of one node."""

    def __init__(self, graph: fx.GraphModule, node: fx.Node) -> None:
        self.graph, self.node = graph, node

    def __call__(self, target: Any, *arguments: Any) -> fx.Node:
        return insert_call(self.graph, target, arguments, self.node)

    def row(self, x: fx.Node, factor: float) -> fx.Node:
        """factor times the sum of each row: (R, n) to (R, 1)."""
        size = x.meta["val"].shape[-1]
        ones = torch.full((1, size), factor)
        weight = insert_constant(self.graph, f"{self.node.name}_row", ones, self.node)
        return self(aten.linear.default, x, weight)

    def centered(self, x: fx.Node) -> fx.Node:
        """What each value of a row differs from its mean."""
        return self(aten.add.Tensor, x, self.row(x, -1.0 / x.meta["val"].shape[-1]))

    def squares(self, x: fx.Node) -> fx.Node:
        """The sum of squares of each row: (R, n) to (R, 1)."""
        lying = self(aten.unsqueeze.default, x, 1)
        standing = self(aten.unsqueeze.default, x, 2)
        return self(aten.squeeze.dim, self(aten.matmul.default, lying, standing), 2)

    def normalized(self, x: fx.Node, epsilon: float) -> fx.Node:
        """Each row divided by its root mean square."""
        mean = self(aten.mul.Tensor, self.squares(x), 1.0 / x.meta["val"].shape[-1])
        root = self(aten.rsqrt.default, self(aten.add.Tensor, mean, epsilon))
        return self(aten.mul.Tensor, x, root)

    def rows(self, x: fx.Node, size: int) -> fx.Node:
        """(R, size)"""
        return self(aten.reshape.default, x, [-1, size])

    def back(self, x: fx.Node) -> fx.Node:
        """Rows in the shape of the node's value."""
        shape = self.node.meta["val"].shape[1:]
        return self(aten.reshape.default, x, [-1, *shape])


def _fixed_size(sizes: Any) -> int | None:
    """The product of sizes that are all known."""
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None


def _after_batch(node: fx.Node) -> bool:
    return all(isinstance(size, int) for size in node.meta["val"].shape[1:])


def _layer_norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    x, shape, weight, bias, epsilon = _arguments(node, None, None, None, None, _EPSILON)
    size = _fixed_size(shape)
    if size is None or not _after_batch(node) or not _are_constants(weight, bias):
        return None
    steps = _Steps(graph, node)
    result = steps.normalized(steps.centered(steps.rows(x, size)), float(epsilon))
    return steps.back(_scaled_rows(graph, steps, result, weight, bias))


def _rms_norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    x, shape, weight, epsilon = _arguments(node, None, None, None, None)
    size = _fixed_size(shape)
    if size is None or not _after_batch(node) or not _are_constants(weight):
        return None
    steps = _Steps(graph, node)
    least = torch.finfo(torch.float32).eps if epsilon is None else float(epsilon)
    result = steps.normalized(steps.rows(x, size), least)
    return steps.back(_scaled_rows(graph, steps, result, weight, None))


def _scaled_rows(
    graph: fx.GraphModule, steps: _Steps, x: fx.Node, weight: Any, bias: Any
) -> fx.Node:
    """Rows times the weight plus the bias, both as one row."""
    for target, factor in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
        if factor is None:
            continue
        value = constant_of(graph, factor)
        neutral = 1.0 if target is aten.mul.Tensor else 0.0
        if bool((value == neutral).all()) and not isinstance(value, nn.Parameter):
            continue
        row = nn.Parameter(value.detach().reshape(1, -1))
        x = steps(target, x, insert_constant(graph, f"{factor.target}_row", row, steps.node))
    return x


def _group_norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    x, groups, weight, bias, epsilon = _arguments(node, None, None, None, None, _EPSILON)
    return _by_groups(graph, node, x, int(groups), (weight, bias), float(epsilon))


def _instance_norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    x, weight, bias, _, _, own, _, epsilon = _arguments(node, *[None] * 6, 0.1, _EPSILON)
    channels = node.meta["val"].shape[1]
    return _by_groups(graph, node, x, channels, (weight, bias), float(epsilon)) if own else None


def _by_groups(
    graph: fx.GraphModule,
    node: fx.Node,
    x: fx.Node,
    groups: int,
    scaling: tuple[Any, Any],
    epsilon: float,
) -> fx.Node | None:
    """Rows of a group's channels and places; then a factor and a summand for each channel."""
    value = node.meta["val"]
    size = _fixed_size(value.shape[1:])
    if size is None or value.dim() not in (3, 4) or not _are_constants(*scaling):
        return None
    steps = _Steps(graph, node)
    rows = steps.rows(x, size // groups)
    result = steps.back(steps.normalized(steps.centered(rows), epsilon))
    weight, bias = (None if each is None else constant_of(graph, each) for each in scaling)
    if weight is None:
        return result
    rank = value.dim() - 2
    kernel = nn.Parameter(weight.detach().reshape(-1, *[1] * (rank + 1)))
    shift = nn.Parameter((torch.zeros_like(weight) if bias is None else bias).detach())
    convolution = aten.conv2d.default if rank == 2 else aten.conv1d.default
    return steps(
        convolution,
        result,
        insert_constant(graph, f"{node.name}_scale", kernel, node),
        insert_constant(graph, f"{node.name}_shift", shift, node),
        [1] * rank, [0] * rank, [1] * rank, len(weight),
    )  # fmt: skip


def _log_softmax(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    x, dim = _arguments(node, None, None)[:2]
    value = node.meta["val"]
    size = _fixed_size(value.shape[-1:])
    if dim % value.dim() != value.dim() - 1 or size is None or not _after_batch(node):
        return None
    steps = _Steps(graph, node)
    rows = steps.rows(x, size)
    least = steps(aten.neg.default, steps(aten.amax.default, rows, [1], True))
    below = steps(aten.add.Tensor, rows, least)
    mean = steps.row(steps(aten.exp.default, below), 1.0 / size)
    total = steps(aten.log.default, steps(aten.mul.Tensor, mean, float(size)))
    result = steps(aten.add.Tensor, below, steps(aten.neg.default, total))
    return steps.back(result)


def _mean(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A mean over other dimensions than height and width: rows times a constant row."""
    x: Any = node.args[0]
    value, result = x.meta["val"], node.meta["val"]
    rank = value.dim()
    dims = sorted(dim % rank for dim in node.args[1] or ())  # type: ignore[union-attr]
    images = rank == 4 and dims == [2, 3]
    size = _fixed_size([value.shape[dim] for dim in dims])
    if images or not dims or 0 in dims or size is None or not _after_batch(node):
        return None
    steps = _Steps(graph, node)
    order = [dim for dim in range(rank) if dim not in dims] + dims
    if order != list(range(rank)):
        x = steps(aten.permute.default, x, order)
    rows = steps.row(steps.rows(x, size), 1.0 / size)
    return steps(aten.reshape.default, rows, [-1, *result.shape[1:]])


def _division(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """x / y as x times 1 / y, where y is a value."""
    x, divisor = node.args
    values = isinstance(x, fx.Node) and isinstance(divisor, fx.Node)
    if not values or is_constant(divisor) or not node.meta["val"].is_floating_point():
        return None
    steps = _Steps(graph, node)
    return steps(aten.mul.Tensor, x, steps(aten.reciprocal.default, divisor))


def _arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """The arguments of a call in the operator's order, with defaults for those left out."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return [given.get(name, default) for name, default in zip(names, defaults, strict=False)]


def _are_constants(*values: Any) -> bool:
    return all(value is None or is_constant(value) for value in values)


_REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node], fx.Node | None]] = {
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
    aten.log_softmax.int: _log_softmax,
    aten.mean.dim: _mean,
    aten.div.Tensor: _division,
}
