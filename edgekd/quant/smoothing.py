"""SmoothQuant: channels with large values hand part of their range to the weights that read them.

Xiao et al. 2023 (arXiv:2211.10438), equation 4: with s_j = max|X_j|^a / max|W_j|^(1 - a) and
a = 0.5, X diag(s)^-1 and diag(s) W give the same product. The inverse goes into what writes X, a
norm or another linear layer; where that is not possible X is divided in float, in an operator of
its own.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.network.fx_names import layer_of
from edgekd.quant.batches import batches
from edgekd.quant.channel_scaling import (
    has_own_weight,
    input_ranges,
    scale_inputs,
    scale_outputs,
)
from edgekd.quant.constants import constant_of, is_constant, replace_constant
from edgekd.quant.inserting import insert_call, insert_constant
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

aten = torch.ops.aten

_STRENGTH = 0.5


def smooth(graph: fx.GraphModule, samples: Tree, strict: bool) -> tuple[tuple[str, ...], list[str]]:
    """Smooth the inputs of the linear layers of a float graph, in place.

    Returns the names of divisions that stay in float, and a note. If `strict` there are none:
    inputs that nothing can write divided are left alone, and the note says which.
    """
    groups = linear_groups(graph)
    largest = _largest(graph, list(groups), samples)
    apart, left, done = [], [], 0
    for source, layers in groups.items():
        weights = torch.stack([input_ranges(graph, layer) for layer in layers]).amax(0)
        factor = _factor(largest[source.name], weights)
        if not divide(graph, source, factor, layers):
            if strict:
                left.append(layer_of(layers[0]))
                continue
            apart.append(insert_division(graph, source, factor, layers).name)
        for layer in layers:
            scale_inputs(graph, layer, factor)
        done += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    note = f"SmoothQuant on {done} of {len(groups)} inputs of linear layers"
    if apart:
        note += f", {len(apart)} of them divided in float"
    if left:
        note += f"; strict leaves out {', '.join(left)}"
    return tuple(apart), [note]


def linear_groups(graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    """The linear layers with weights of their own, by the value that they read."""
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.target is aten.linear.default and has_own_weight(node):
            found.setdefault(node.args[0], []).append(node)
    return found


def _factor(activations: Tensor, weights: Tensor) -> Tensor:
    """s (i,); 1 for channels that are always zero or read by zero weights only."""
    used = (activations > 0) & (weights > 0)
    factor = activations.pow(_STRENGTH) / weights.clamp_min(1e-12).pow(1 - _STRENGTH)
    return torch.where(used, factor.clamp(1e-5, 1e5), torch.ones_like(factor))


def _largest(graph: fx.GraphModule, sources: list[fx.Node], samples: Tree) -> dict[str, Tensor]:
    """The largest size of each channel, the last dimension, of these values."""
    found: dict[str, Tensor] = {}

    def see(node: fx.Node, value: Tensor) -> None:
        most = value.abs().flatten(0, -2).amax(0)
        found[node.name] = torch.maximum(found.get(node.name, most), most)

    watch(graph, batches(samples), sources, see)
    return found


def divide(graph: fx.GraphModule, source: fx.Node, factor: Tensor, layers: list[fx.Node]) -> bool:
    """Let what writes `source` write it divided, if `layers` are all that read it."""
    if set(source.users) != set(layers):
        return False
    if source.target is aten.linear.default and has_own_weight(source):
        scale_outputs(graph, source, 1.0 / factor)
        return True
    places = _norm_places(source)
    for place in places:
        old: Any = source.args[place]
        value = constant_of(graph, old).detach()
        new = replace_constant(graph, old, source, value / factor)
        source.args = (*source.args[:place], new, *source.args[place + 1 :])
    return bool(places)


def _norm_places(source: fx.Node) -> list[int]:
    """The arguments of a layer norm, or of a product with a constant, that hold a number for each
    channel; none for anything else."""
    if source.target is aten.mul.Tensor:
        channels = source.meta["val"].shape[-1]
        places = [n for n in (0, 1) if is_constant(source.args[n])]
        fits = [n for n in places if tuple(source.args[n].meta["val"].shape) == (channels,)]  # type: ignore[union-attr]
        return fits if len(fits) == 1 else []
    if source.target is not aten.layer_norm.default or len(source.args) < 3:
        return []
    if len(source.args[1]) != 1 or not is_constant(source.args[2]):  # type: ignore[arg-type]
        return []
    bias = source.args[3] if len(source.args) > 3 else None
    if bias is None:
        return [2]
    return [2, 3] if is_constant(bias) else []


def insert_division(
    graph: fx.GraphModule, source: fx.Node, factor: Tensor, layers: list[fx.Node]
) -> fx.Node:
    """Let `layers` read `source` divided, by an operator of its own."""
    with graph.graph.inserting_before(layers[0]):
        inverse = insert_constant(graph, f"{source.name}_smoothing", 1.0 / factor, layers[0])
        divided = insert_call(graph, aten.mul.Tensor, (source, inverse), layers[0])
    for layer in layers:
        layer.replace_input_with(source, divided)
    return divided
