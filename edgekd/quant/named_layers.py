"""Names an exported graph's operators after the user's layers while it is exported again:
litert-torch calls an operator of the file after the modules around it."""

import re
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from edgekd.network.fx_names import module_paths
from edgekd.quant import ops
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE

_DOT = "|"
"""What stands for a dot in the names of layers, which modules can't have in theirs. One before each
name keeps it apart from a module's own attributes, such as `to`, which a layer may be called;
`formats.operator_notes.converted_layer` puts the names back."""


class Layer(nn.Module):
    """Calls a function inside a module."""

    def forward(self, call: Callable[[fx.Node], Any], node: fx.Node) -> Any:
        """What the call gives."""
        return call(node)


class NamedLayers(nn.Module):
    """A graph whose every operator runs inside a module with the name of its layer."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph, self.layers = graph, nn.Module()
        self.names = {node: _DOT + layer for node, layer in layer_names(graph).items()}
        for name in set(self.names.values()):
            self.layers.add_module(name, Layer())

    def forward(self, inputs: Any) -> Any:
        """What the graph gives."""
        names, layers = self.names, self.layers

        class Named(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                if n.name not in names:
                    return super().run_node(n)
                return getattr(layers, names[n.name])(super().run_node, n)

        return Named(self.graph).run(inputs)


def layer_names(graph: fx.GraphModule) -> dict[str, str]:
    """The layer of each call, by the node's name. Quantize and dequantize operators belong to what
    they read, those of weights to what reads them, and a clamp to the layer that it is fused to."""
    named: dict[fx.Node, str] = {}
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    borders = QUANTIZE | DEQUANTIZE
    for node in calls:
        source = node.args[0] if node.args else None
        fused = node.target in ops.FUSED and source in named
        if fused and isinstance(source, fx.Node) and source.target in ops.WEIGHTED:
            named[node] = named[source]
        elif node.target not in borders:
            named[node] = _layer(node)
        elif isinstance(source, fx.Node) and source in named:
            named[node] = named[source]
    for node in reversed(calls):
        readers = [named[user] for user in node.users if user in named]
        if node not in named and readers:
            named[node] = readers[0]
    return {node.name: name.replace(".", _DOT) for node, name in named.items()}


def _layer(node: fx.Node) -> str:
    """The innermost module, the name of the weight without what was done to it, or the node's."""
    paths = module_paths(node)
    if paths:
        return paths[-1]
    source: Any = node.args[1] if node.target in ops.WEIGHTED else None
    while isinstance(source, fx.Node) and source.op != "get_attr" and source.args:
        source = source.args[0]
    weight = re.match(r"(.+)_weight", str(source.target)) if isinstance(source, fx.Node) else None
    return weight.group(1) if weight else node.name
