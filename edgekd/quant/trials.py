"""Graphs in which any set of layers can be made narrow, to measure each layer's sensitivity."""

from collections.abc import Collection
from typing import Any, cast

from torch import fx
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.mixed import Wide
from edgekd.quant.narrow import LIMIT, Narrow, NarrowWeight
from edgekd.quant.weight_only import narrow_weights
from edgekd.quant.widths import fused_clamp


class Int8Trial:
    """A graph prepared for quantization-aware training, its ranges set. What is `wide` computes in
    float, or has int8 weights and activations that are not rounded, as good as those of 16 bits."""

    def __init__(self, graph: fx.GraphModule, wide: Wide = "float") -> None:
        self.graph, self.wide = graph, wide
        self._own: dict[str, list[FakeQuantize]] = {}
        for node in graph.graph.nodes:
            if node.target in ops.WEIGHTED:
                quantizers = self._quantizers(node)
                if quantizers:
                    self._own.setdefault(layer_of(node), []).extend(quantizers)
        self.layers = list(self._own)
        owned = {id(each) for quantizers in self._own.values() for each in quantizers}
        self._every = [part for part in graph.modules() if isinstance(part, FakeQuantize)]
        self._rest = [part for part in self._every if id(part) not in owned]
        for part in self._every:
            part.disable_observer()

    def _quantizers(self, layer: fx.Node) -> list[FakeQuantize]:
        """Those of a layer's input and output, and in float of its weight."""
        last = fused_clamp(layer) or layer
        inputs = layer.args[:1] if self.wide == "int16" else layer.args[:2]
        nodes: list[Any] = [*inputs, *last.users]
        modules = [
            self.graph.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"
        ]
        return [module for module in modules if isinstance(module, FakeQuantize)]

    def narrow(self, names: Collection[str]) -> None:
        """A single layer is measured in a float network; otherwise sums and pools are int8 too.
        What a layer of 16 bits reads and writes is not rounded, whoever else reads or writes it."""
        alone = len(names) == 1 and len(self.layers) > 1
        for part in self._every:
            part.disable_fake_quant()
        for part in () if alone else self._rest:
            part.enable_fake_quant()
        for name in names:
            for part in self._own[name]:
                part.enable_fake_quant()
        if self.wide == "int16" and not alone:
            for name in set(self.layers) - set(names):
                for part in self._own[name]:
                    part.disable_fake_quant()


class NarrowTrial:
    """A graph with narrow weights, or weights of the type `wide`."""

    def __init__(self, graph: fx.GraphModule, wide: Wide) -> None:
        self.graph = graph
        self._weights = narrow_weights(graph)
        self._dtypes = {name: each.dtype for name, each in self._weights.items()}
        self._wide = wide
        self.layers = list(self._weights)

    def narrow(self, names: Collection[str]) -> None:
        """Set every weight's type."""
        for name, each in self._weights.items():
            self._set(each, name in names, name)

    def _set(self, weight: NarrowWeight, narrow: bool, name: str) -> None:
        weight.enabled = narrow or self._wide != "float"
        if narrow:
            weight.dtype = self._dtypes[name]
        elif self._wide != "float":
            weight.dtype = cast(Narrow, self._wide)
        weight.limit = LIMIT[weight.dtype]
