"""High biases are absorbed by the next layer, so that activations start near zero.

Nagel et al. 2019 (arXiv:1906.04721), equations 13 to 16: where a channel before a ReLU is almost
never smaller than c > 0, r(W x + b) = r(W x + b - c) + c, and W2 c goes into the next layer's bias.
c = max(0, mean - 3 deviations) of the channel on the samples. The next layer must not pad its
input with zeros, which would then mean c.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.batches import batches
from edgekd.quant.channel_scaling import groups_of, weight_of
from edgekd.quant.constants import constant_of, replace_constant
from edgekd.quant.equalization import Pair, pairs_of
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

aten = torch.ops.aten


def absorb_biases(graph: fx.GraphModule, samples: Tree) -> list[str]:
    """Absorb the high biases of a float graph in place; a note says how many."""
    pairs = [pair for pair in pairs_of(graph) if _is_direct(pair)]
    moments = _moments(graph, [pair.first for pair in pairs], samples)
    absorbed = 0
    for pair in pairs:
        mean, deviation = moments[pair.first.name]
        height = (mean - 3.0 * deviation).clamp_min(0.0).float()
        absorbed += int((height > 0).sum())
        if bool((height > 0).any()):
            _add_to_bias(graph, pair.first, -height)
            _add_to_bias(graph, pair.second, _response(graph, pair.second, height))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return [f"{absorbed} high biases absorbed by the next layer"]


def _is_direct(pair: Pair) -> bool:
    """Whether a ReLU is all that is between, and the second layer doesn't pad."""
    (relu,) = pair.first.users
    if relu.target not in (aten.relu.default, aten.relu_.default) or pair.second not in relu.users:
        return False
    if pair.second.target is aten.linear.default:
        return pair.repeats == 1
    arguments: tuple[Any, ...] = (*pair.second.args, *[None] * 5)
    padding = arguments[4]
    return padding in (None, "valid") or (not isinstance(padding, str) and not any(padding))


def _response(graph: fx.GraphModule, layer: fx.Node, height: Tensor) -> Tensor:
    """(o,) what a layer makes of an input that is `height` (i,) everywhere."""
    weight, groups = weight_of(graph, layer), groups_of(layer)
    apart = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1).sum(3)
    return (apart * height.view(groups, 1, -1)).sum(2).flatten()


def _add_to_bias(graph: fx.GraphModule, layer: fx.Node, change: Tensor) -> None:
    old: Any = layer.args[2] if len(layer.args) > 2 else None
    value = change if old is None else constant_of(graph, old).detach() + change
    layer.args = (
        *layer.args[:2],
        replace_constant(graph, old, layer, value, "bias_absorbing"),
        *layer.args[3:],
    )
    if old is not None and not old.users:
        graph.graph.erase_node(old)


def _moments(
    graph: fx.GraphModule, layers: list[fx.Node], samples: Tree
) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean and the standard deviation of each channel of each layer's output."""
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def see(node: fx.Node, value: Tensor) -> None:
        linear = node.target is aten.linear.default
        rows = value.movedim(-1 if linear else 1, 0).flatten(1).double()
        count, first, second = sums.get(node.name, (0, 0.0, 0.0))
        square = rows.square().sum(1)
        sums[node.name] = count + rows.shape[1], first + rows.sum(1), second + square

    watch(graph, batches(samples), layers, see)
    found = {}
    for name, (count, first, second) in sums.items():
        mean = first / count
        found[name] = mean, (second / count - mean.square()).clamp_min(0.0).sqrt()
    return found
