"""A network cut at a layer: the part after it, and how a layer's features are pooled."""

import copy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, Tracer

from edgekd.errors import InputError, first_line
from edgekd.network.taps import layer_names, no_such_layer


def rest_behind(network: nn.Module, layer: str, where: str) -> GraphModule:
    """A copy of what the network computes from a layer's output on: (features) -> outputs.

    Raises `InputError` if there is no such layer, if the network's Python can't be traced, or if
    something bypasses the layer, so that its output does not determine the rest.
    """
    known = layer_names(network)
    if layer not in known:
        raise no_such_layer(layer, known, where)
    try:
        graph = _KeepWhole(layer).trace(network)
    except Exception as error:  # whatever the user's own forward does with a tracer's values
        first = first_line(error)
        message = f"the network can't be cut at '{layer}': tracing it fails with: {first}"
        raise InputError(message, where=where) from None
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == layer]
    if len(calls) != 1:
        message = f"the network calls the layer '{layer}' {len(calls)} times, not once"
        raise InputError(message, where=where)
    _cut(list(graph.nodes), calls[0], layer, where)
    with graph.inserting_before(calls[0]):
        features = graph.placeholder("features")
    calls[0].replace_all_uses_with(features)
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op != "output" and node != features:
            graph.erase_node(node)
    rest = GraphModule(network, graph)
    rest.delete_all_unused_submodules()
    return copy.deepcopy(rest)


class _KeepWhole(Tracer):
    """Traces a network, with one layer left as one call."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self.layer or super().is_leaf_module(
            m, module_qualified_name
        )


def _cut(nodes: list[Node], cut: Node, layer: str, where: str) -> None:
    """Reject a cut that data from the samples bypasses."""
    place = nodes.index(cut)
    behind = set(nodes[place + 1 :])
    for node in nodes[:place]:
        if node.op != "get_attr" and any(user in behind for user in node.users):
            message = f"the network can't be cut at '{layer}': '{node.name}' bypasses it"
            hint = "name a layer whose output is all that the rest uses, such as a whole stage"
            raise InputError(message, where=where, hint=hint)


def pooled(features: Tensor) -> Tensor:
    """(B, C, ...) of a convolution, (B, L, D) of a Transformer or (B, D) -> (B, C) or (B, D)."""
    if features.ndim == 3:
        return features.mean(1)
    return torch.flatten(features, 2).mean(2) if features.ndim > 2 else features


def width_of(shape: tuple[int, ...]) -> int:
    """The number of values that `pooled` returns for a sample's features of that shape."""
    return shape[-1] if len(shape) == 2 else shape[0]
