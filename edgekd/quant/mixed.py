"""Mixed precision by measured sensitivity: the most sensitive layers stay wider."""

from collections.abc import Callable, Collection, Mapping
from typing import Literal, Protocol

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import fx, nn

from edgekd.network.evaluation import predict
from edgekd.values.progress import Progress
from edgekd.values.tables import Value
from edgekd.values.tree import Tree, leaves

Wide = Literal["int4", "int8", "float"]


class Mixed(Value):
    """Which layers stay `wide`: a number of `layers`, or as many as keep within `accuracy_drop`, in
    percentage points of the score on the validation samples. A layer's sensitivity is the squared
    error of the network's outputs when only that layer is narrow, relative to the outputs' own
    square.
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
        """Make these layers narrow and all others wide."""


def sensitivities(
    trial: Trial, reference: nn.Module, samples: Tree, progress: Progress
) -> dict[str, float]:
    """Each layer's relative output error when only that layer is narrow, the largest first."""
    found: dict[str, float] = {}
    with torch.no_grad():
        expected = [leaf.double() for leaf in leaves(predict(reference, samples))]
        sizes = [leaf.square().sum().clamp_min(1e-30) for leaf in expected]
        for number, name in enumerate(trial.layers):
            progress("sensitivity", number, len(trial.layers))
            trial.narrow([name])
            shares = [
                float((leaf.double() - wanted).square().sum() / size)
                for leaf, wanted, size in zip(
                    leaves(trial.graph(samples)), expected, sizes, strict=True
                )
            ]
            found[name] = sum(shares) / len(shares)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def widened(
    trial: Trial,
    errors: Mapping[str, float],
    mixed: Mixed,
    score: Callable[[nn.Module], float],
    before: float,
) -> tuple[str, ...]:
    """The layers that stay wide: the first of `errors`, as few as the recipe allows."""
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
