"""Softmax over many values, for which the fixed grid of integer kernels is too coarse.

Integer kernels give multiples of 1/256. Where attention spreads over 200 tokens, each weight is
about one such step, and most of it is lost. Such a softmax gets a grid of its own, which starts at
zero and ends at the largest weight: TFLite then computes it in float.
"""

from collections.abc import Collection

import torch
from torch import Tensor, fx

from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.regions import integer_nodes
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

aten = torch.ops.aten

ON_OWN_GRID = aten._softmax.default
"""Stands for a softmax without a fixed grid; the exported graph has none of it."""

_ENOUGH_DB = 25.0
_GAINED_DB = 6.0


def free_softmax(
    graph: fx.GraphModule, samples: Tree, fine: Collection[fx.Node] = ()
) -> tuple[str, ...]:
    """Give each softmax that the fixed grid leaves fewer than 25 dB, and its own grid at least 6
    dB more, its own grid; and a note on how many there are. Those in `fine` have 16 bits."""
    nodes = [node for node in integer_nodes(graph) if node.target is aten.softmax.int]
    nodes = [node for node in nodes if node not in fine]
    freed = [node for node, fixed, own in _noises(graph, nodes, samples)
             if fixed < min(_ENOUGH_DB, own - _GAINED_DB)]  # fmt: skip
    for node in freed:
        node.target, node.args = ON_OWN_GRID, (*node.args[:2], False)
        node.kwargs = {}
    graph.recompile()
    if not freed:
        return ()
    return (
        f"{len(freed)} softmax over many values: weights of about 1/256 are lost on the grid of "
        "integer kernels, so each has a grid of its own",
    )


def _noises(
    graph: fx.GraphModule, nodes: list[fx.Node], samples: Tree
) -> list[tuple[fx.Node, float, float]]:
    """The signal to noise of each softmax on the fixed grid and on its own."""
    found: list[tuple[fx.Node, float, float]] = []

    def see(node: fx.Node, value: Tensor) -> None:
        fixed, own = _rounded(value, 1 / 256), _rounded(value, float(value.max()) / 255)
        found.append((node, signal_to_noise(value, fixed), signal_to_noise(value, own)))

    watch(graph, [samples], nodes, see)
    return found


def _rounded(value: Tensor, step: float) -> Tensor:
    return (value / step).round().clamp(0, 255) * step
