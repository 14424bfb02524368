"""Residual sums that stay in float since the norm behind them would amplify their rounding.

A layer norm scales every token to the same size. On one grid for all tokens, a token that is much
smaller than the largest, such as a class token among patches, would have few steps left.
"""

from collections.abc import Collection

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.regions import integer_nodes
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

aten = torch.ops.aten

_NORMS = {aten.layer_norm.default, aten.rms_norm.default}
_SUMS = {aten.add.Tensor, aten.add_.Tensor}

_LEAST_DB = 20.0
"""The signal to rounding noise that the smallest token must have: noise of 10 %."""


def coarse_sums(
    graph: fx.GraphModule, samples: Tree, fine: Collection[fx.Node] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of integer sums, products and joins that are read by a norm and leave a token less
    than 20 dB, and a note on how many there are. Those in `fine` have 16 bits."""
    integer = integer_nodes(graph)
    nodes = [node for node in _behind_norms(graph) if node in integer and node not in fine]
    found: dict[str, float] = {}

    def see(node: fx.Node, value: Tensor) -> None:
        found[node.name] = token_noise(value)

    watch(graph, [samples], nodes, see)
    coarse = tuple(name for name, noise in found.items() if noise < _LEAST_DB)
    if not coarse:
        return (), ()
    note = (
        f"{len(coarse)} values of the residual sums stay in float: on one int8 grid the smallest "
        f"token would keep {min(found.values()):.0f} dB"
    )
    return coarse, (note,)


def _behind_norms(graph: fx.GraphModule) -> list[fx.Node]:
    """The sums that norms read, and the products and joins that those add up."""
    waiting = [node.args[0] for node in graph.graph.nodes if node.target in _NORMS]
    found: dict[fx.Node, None] = {}
    while waiting:
        node = waiting.pop()
        if not isinstance(node, fx.Node) or node in found:
            continue
        if node.target in _SUMS:
            waiting += node.args[:2]
        elif node.target in ops.SHARED:
            waiting.append(node.args[0])
        if node.target in _SUMS | ops.JOINED | {aten.mul.Tensor}:
            found[node] = None
    return list(found)


def token_noise(value: Tensor) -> float:
    """10 log10(variance / (step^2 / 12)) of the smallest token (..., features), in decibels, where
    256 steps span all values."""
    step = float(value.max().clamp_min(0) - value.min().clamp_max(0)) / 255
    smallest = float(value.double().var(-1, correction=0).min())
    tiny = 1e-30
    return float(10 * torch.tensor((smallest + tiny) / (step**2 / 12 + tiny)).log10())
