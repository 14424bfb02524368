"""Multiplies the channels of one value in a float graph by numbers: the outputs of the layer that
writes it and the inputs of the layers that read it, so that the function stays the same."""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.constants import constant_of, is_constant, replace_constant

aten = torch.ops.aten


def groups_of(layer: fx.Node) -> int:
    """The groups of a convolution; 1 for a linear layer."""
    arguments: tuple[Any, ...] = layer.args
    if layer.target is aten.linear.default or len(arguments) < 7:
        return 1
    return int(arguments[6])


def weight_of(graph: fx.GraphModule, layer: fx.Node) -> Tensor:
    """The float weight (o, i / groups, ...) of a layer."""
    return constant_of(graph, layer.args[1]).detach()  # type: ignore[arg-type]


def has_own_weight(layer: fx.Node) -> bool:
    """Whether a layer has a constant weight, and bias, that no other reads."""
    if layer.target not in ops.WEIGHTED:
        return False
    constants: list[Any] = [each for each in layer.args[1:3] if each is not None]
    return all(is_constant(each) and len(each.users) == 1 for each in constants)


def input_channels(graph: fx.GraphModule, layer: fx.Node) -> int:
    """The channels that a layer reads."""
    return int(weight_of(graph, layer).shape[1]) * groups_of(layer)


def output_ranges(graph: fx.GraphModule, layer: fx.Node) -> Tensor:
    """(o,) the largest weight of each output channel."""
    return weight_of(graph, layer).flatten(1).abs().amax(1)


def input_ranges(graph: fx.GraphModule, layer: fx.Node) -> Tensor:
    """(i,) the largest weight by which each input channel is multiplied."""
    groups, weight = groups_of(layer), weight_of(graph, layer)
    apart = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    return apart.abs().amax((1, 3)).flatten()


def scale_outputs(graph: fx.GraphModule, layer: fx.Node, factor: Tensor) -> None:
    """Multiply each output channel (o,) of a layer."""
    weight = weight_of(graph, layer)
    scaled = weight * factor.view(-1, *[1] * (weight.dim() - 1))
    _put(graph, layer, 1, scaled.to(weight.dtype))
    if len(layer.args) > 2 and layer.args[2] is not None:
        bias = constant_of(graph, layer.args[2]).detach()  # type: ignore[arg-type]
        _put(graph, layer, 2, (bias * factor).to(bias.dtype))


def scale_inputs(graph: fx.GraphModule, layer: fx.Node, factor: Tensor) -> None:
    """Multiply the weights of each input channel (i,) of a layer."""
    groups, weight = groups_of(layer), weight_of(graph, layer)
    apart = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    scaled = apart * factor.view(groups, 1, -1, 1)
    _put(graph, layer, 1, scaled.reshape(weight.shape).to(weight.dtype))


def _put(graph: fx.GraphModule, layer: fx.Node, place: int, value: Tensor) -> None:
    old: Any = layer.args[place]
    new = replace_constant(graph, old, layer, value)
    layer.args = (*layer.args[:place], new, *layer.args[place + 1 :])
    if not old.users:
        graph.graph.erase_node(old)
