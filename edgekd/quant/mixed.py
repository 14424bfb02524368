"""Mixed precision by measured sensitivity: the layers that suffer most stay wider."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, fx, nn
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from edgekd.config import Value
from edgekd.quant import ops
from edgekd.quant.inspection import layer_of
from edgekd.quant.narrow import LIMIT, NarrowWeight
from edgekd.quant.quantizer import fused_clamp
from edgekd.quant.weight_only import narrow_weights

Wide = Literal["int4", "int8", "float"]
Progress = Callable[[str, int, int], None]


class Mixed(Value):
    """Which layers stay `wide`: so many `layers`, or as many as an `accuracy_drop` needs.

    The drop is in points of the validation samples' score. A layer's sensitivity is the squared
    error of the network's outputs when it alone is narrow, relative to the outputs' own square.
    """

    wide: Wide | None = None
    accuracy_drop: float | None = Field(default=None, ge=0.0, lt=100.0)
    layers: PositiveInt | None = None

    @model_validator(mode="after")
    def _one(self) -> "Mixed":
        if (self.accuracy_drop is None) == (self.layers is None):
            raise ValueError("give either 'accuracy_drop' or 'layers'")
        return self


class Trial(Protocol):
    """A graph in which any set of layers can be made narrow for a measurement."""

    graph: fx.GraphModule
    layers: list[str]

    def narrow(self, names: Collection[str]) -> None:
        """These are narrow, all other layers wide."""


class Int8Trial:
    """A graph prepared for quantization-aware training, its ranges set."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self._own: dict[str, list[FakeQuantize]] = {}
        for node in graph.graph.nodes:
            if node.target in ops.WEIGHTED:
                found = self._quantizers(node)
                if found:
                    self._own.setdefault(layer_of(node), []).extend(found)
        self.layers = list(self._own)
        owned = {id(each) for found in self._own.values() for each in found}
        self._every = [part for part in graph.modules() if isinstance(part, FakeQuantize)]
        self._rest = [part for part in self._every if id(part) not in owned]
        for part in self._every:
            part.disable_observer()

    def _quantizers(self, layer: fx.Node) -> list[FakeQuantize]:
        last = fused_clamp(layer) or layer
        nodes: list[Any] = [*layer.args[:2], *last.users]
        modules = [
            self.graph.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"
        ]
        return [module for module in modules if isinstance(module, FakeQuantize)]

    def narrow(self, names: Collection[str]) -> None:
        """Alone a layer is measured in a float network; otherwise sums and pools are int8 too."""
        for part in self._every:
            part.disable_fake_quant()
        for part in self._rest if len(names) > 1 else ():
            part.enable_fake_quant()
        for name in names:
            for part in self._own[name]:
                part.enable_fake_quant()


class NarrowTrial:
    """A graph of narrow weights; wide ones are `wide`."""

    def __init__(self, graph: fx.GraphModule, wide: Wide) -> None:
        self.graph = graph
        self._weights = narrow_weights(graph)
        self._dtypes = {name: each.dtype for name, each in self._weights.items()}
        self._wide = wide
        self.layers = list(self._weights)

    def narrow(self, names: Collection[str]) -> None:
        """Set every weight's width."""
        for name, each in self._weights.items():
            self._set(each, name in names, name)

    def _set(self, weight: NarrowWeight, narrow: bool, name: str) -> None:
        weight.enabled = narrow or self._wide != "float"
        if narrow:
            weight.dtype = self._dtypes[name]
        elif self._wide != "float":
            weight.dtype = self._wide
        weight.limit = LIMIT[weight.dtype]


def sensitivities(
    trial: Trial, reference: nn.Module, samples: Tensor, progress: Progress
) -> dict[str, float]:
    """Each layer's relative output error when it alone is narrow, the largest first."""
    found: dict[str, float] = {}
    with torch.no_grad():
        expected = reference(samples).double()
        size = expected.square().sum().clamp_min(1e-30)
        for number, name in enumerate(trial.layers):
            progress("sensitivity", number, len(trial.layers))
            trial.narrow([name])
            error = (trial.graph(samples).double() - expected).square().sum()
            found[name] = float(error / size)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def widened(
    trial: Trial,
    errors: Mapping[str, float],
    mixed: Mixed,
    score: Callable[[nn.Module], float],
    before: float,
) -> tuple[str, ...]:
    """The layers that stay wide: the first ones of `errors`, as few as the recipe allows."""
    order = list(errors)
    if mixed.layers is not None:
        return tuple(order[: mixed.layers])
    assert mixed.accuracy_drop is not None
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        trial.narrow(order[middle:])
        if (before - score(trial.graph)) * 100 <= mixed.accuracy_drop + 1e-9:
            high = middle
        else:
            low = middle + 1
    return tuple(order[:high])
