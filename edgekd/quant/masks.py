"""Masked attention in integers.

Where attention is masked, scores are -inf, which no integer grid holds. Scores so far below those
of the same row that the softmax rounds them to nothing do the same. How low that is depends on the
scores, so masks are written with -inf first, and fitted to samples later.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant
from edgekd.quant.rewrite import integers_of
from edgekd.values.tree import Tree

aten = torch.ops.aten

MARGIN = 10.0
"""How far masked scores lie under the largest of their row: e^-10 is an eightieth of the softmax's
steps of 1/256."""

_LOWEST = -1e4
"""Numbers in masks that are meant as -inf."""

_CHOICES = (
    aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar,
)  # fmt: skip

_SOFTMAX = (aten.softmax.int, aten._softmax.default)

_SEEN_THROUGH = {aten.expand.default, aten.contiguous.default}


def masked(
    graph: fx.GraphModule, node: fx.Node, scores: fx.Node, mask: Any, causal: bool
) -> fx.Node | None:
    """The scores (N, heads, L, S) of an attention with -inf where they are masked, inserted at the
    graph's insertion point; None for a mask of unknown size."""
    if causal:
        sizes = scores.meta["val"].shape[-2:]
        if not all(isinstance(size, int) for size in sizes):
            return None
        past = torch.ones(sizes, dtype=torch.bool).tril()
        mask = insert_constant(graph, f"{node.name}_causal", past[None, None], node)
    mask = _unexpanded(mask)
    filled = _filled(graph, mask, node)
    if filled is not None:
        bias, mask = filled
        if not _is_zero(graph, bias):
            scores = insert_call(graph, aten.add.Tensor, (scores, bias), node)
        return masked(graph, node, scores, mask, False)
    if mask.meta["val"].dtype is torch.bool:
        if is_constant(mask) and bool(constant_of(graph, mask).all()):
            return scores
        hidden = torch.full([1] * scores.meta["val"].dim(), -torch.inf)
        fill = insert_constant(graph, f"{node.name}_hidden", hidden, node)
        return insert_call(graph, aten.where.self, (mask, scores, fill), node)
    if is_constant(mask):
        value = constant_of(graph, mask).detach()
        low = value <= _LOWEST
        if bool(low.any()) or not bool(value.any()):
            if bool(value[~low].any()):
                bias = insert_constant(graph, f"{node.name}_bias", value.masked_fill(low, 0), node)
                scores = insert_call(graph, aten.add.Tensor, (scores, bias), node)
            seen = insert_constant(graph, f"{node.name}_seen", ~low, node)
            return masked(graph, node, scores, seen, False)
    return insert_call(graph, aten.add.Tensor, (scores, mask), node)


def masked_sum(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Scores to which a softmax's own module adds a mask of low numbers, as attention that is
    written out does, with -inf where they are masked, inserted at the graph's insertion point. None
    for any other sum."""
    if node.kwargs or not node.users or any(user.target not in _SOFTMAX for user in node.users):
        return None
    for scores, mask in (node.args[:2], node.args[1::-1]):
        if not isinstance(scores, fx.Node) or not isinstance(mask, fx.Node) or is_constant(mask):
            continue
        plain = _unexpanded(mask)
        if _filled(graph, plain, node) is not None:
            return masked(graph, node, scores, plain, False)
        hidden = _scaled_low(graph, plain)
        if hidden is not None:
            seen = insert_call(graph, aten.eq.Scalar, (hidden, 0), node)
            return masked(graph, node, scores, seen, False)
    return None


def _unexpanded(mask: Any) -> Any:
    """A mask of the same rank before it is expanded, which happens where it is used."""
    rank = mask.meta["val"].dim()
    while mask.target in _SEEN_THROUGH and mask.args[0].meta["val"].dim() == rank:
        mask = mask.args[0]
    return mask


def _scaled_low(graph: fx.GraphModule, mask: fx.Node) -> fx.Node | None:
    """`hidden` of a mask that is written as hidden * low, 1 where it hides and 0 elsewhere."""
    if mask.target is not aten.mul.Tensor:
        return None
    for hidden, low in (mask.args[:2], mask.args[1::-1]):
        if isinstance(hidden, fx.Node) and _is_low(graph, low):
            return hidden
    return None


def _is_zero(graph: fx.GraphModule, value: Any) -> bool:
    """Whether a number or a node is nothing but zeros."""
    if isinstance(value, int | float):
        return value == 0
    if isinstance(value, fx.Node) and value.target in (aten.zeros.default, aten.zeros_like.default):
        return True
    return is_constant(value) and not bool(constant_of(graph, value).any())


def _filled(graph: fx.GraphModule, mask: fx.Node, like: fx.Node) -> tuple[Any, fx.Node] | None:
    """A bias that is -inf where a condition says so, as a position bias that is masked: the bias
    and where it is seen."""
    if mask.target is aten.masked_fill.Scalar and _is_low(graph, mask.args[2]):
        bias, hidden, _ = mask.args
        return bias, insert_call(graph, aten.logical_not.default, (hidden,), like)
    if mask.target in _CHOICES and _is_low(graph, mask.args[2]):
        seen, bias, _ = mask.args
        return bias, seen  # type: ignore[return-value]
    return None


def _is_low(graph: fx.GraphModule, value: Any) -> bool:
    """Whether a number, or a constant of one, is meant as -inf."""
    if is_constant(value):
        tensor = constant_of(graph, value)
        return tensor.numel() == 1 and float(tensor) <= _LOWEST
    return isinstance(value, int | float) and value <= _LOWEST


def hides(node: fx.Node) -> bool:
    """Whether a node replaces values by a constant where a condition does not hold."""
    if node.target is not aten.where.self:
        return False
    shown, hidden = (integers_of(each) for each in node.args[1:3])
    return isinstance(shown, fx.Node) and not is_constant(shown) and is_constant(hidden)


def fit_masks(graph: fx.GraphModule, samples: Tree) -> None:
    """Replace -inf by a number `MARGIN` below the least of the rows' largest scores, or by the
    least score if that is lower."""
    nodes = [node for node in graph.graph.nodes if hides(node) and _is_infinite(graph, node)]
    fits: dict[fx.Node, float] = {}

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n in nodes:
                fits[n] = _fit(self.env[n.args[1]], result)  # type: ignore[index]
            return result

    if nodes:
        with torch.no_grad():
            Watched(graph).run(samples)
    for node, least in fits.items():
        fill: Any = node.args[2]
        constant_of(graph, fill).fill_(least)


def _is_infinite(graph: fx.GraphModule, node: fx.Node) -> bool:
    value = constant_of(graph, node.args[2])  # type: ignore[arg-type]
    return value.numel() == 1 and float(value) <= _LOWEST


def _fit(scores: Tensor, hidden: Tensor) -> float:
    largest = hidden.amax(-1)
    largest = largest[largest > _LOWEST]
    least = float(scores.min())
    return min(least, float(largest.min()) - MARGIN) if len(largest) else least
