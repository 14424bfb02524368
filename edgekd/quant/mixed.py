"""Mixed precision by measured sensitivity: the most sensitive layers stay wider."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import fx, nn

from edgekd.errors import InputError
from edgekd.network.evaluation import predict
from edgekd.values.progress import Progress
from edgekd.values.tables import Value
from edgekd.values.tree import Tree, leaves

Wide = Literal["int4", "int8", "int16", "float"]


class Mixed(Value):
    """Which layers stay `wide`: a number of `layers`, or as many as keep within `accuracy_drop`, in
    percentage points of the score on the validation samples. A layer's sensitivity is the squared
    error of the network's outputs when only that layer is narrow, relative to the outputs' own
    square. With `weights_kb`, each layer of a network with narrow weights gets a type of its own,
    up to `wide`, so that all parameters together take at most that many kilobytes.
    """

    wide: Wide | None = None
    accuracy_drop: float | None = Field(default=None, ge=0.0, lt=100.0)
    layers: PositiveInt | None = None
    weights_kb: float | None = Field(default=None, gt=0.0)

    @model_validator(mode="after")
    def _one(self) -> "Mixed":
        given = (self.accuracy_drop, self.layers, self.weights_kb)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give one of 'accuracy_drop', 'layers' and 'weights_kb'")
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
    costs: Mapping[str, float] = {},
) -> tuple[str, ...]:
    """The layers that stay wide, the most sensitive first: as few as the recipe allows, or for an
    `accuracy_drop` those that cost least.

    The shortest beginning of an order that keeps within the drop is found by halving; then each of
    its layers is made narrow again, the most expensive by `costs` first, where the drop still
    holds without it. The layers are ordered by their errors, and by errors for their cost; of the
    two choices the cheaper counts.
    """
    order = list(errors)
    if mixed.layers is not None:
        return tuple(order[: mixed.layers])
    limit = mixed.accuracy_drop or 0.0

    def holds(wide: Collection[str]) -> bool:
        trial.narrow([name for name in order if name not in wide])
        return (before - score(trial.graph)) * 100 <= limit + 1e-9

    least = 1e-3 * max(costs.values(), default=0.0) + 1e-12
    worth = {name: errors[name] / max(costs.get(name, 0.0), least) for name in order}
    by_worth = sorted(order, key=lambda name: -worth[name])
    choices = [_fewest(each, holds, costs) for each in (order, by_worth)]
    best = min(choices, key=lambda names: (extra(names, costs), len(names)))
    return tuple(sorted(best, key=order.index))


def extra(layers: Collection[str], costs: Mapping[str, float]) -> float:
    """What layers cost more together when they are wide."""
    return sum(costs.get(name, 0.0) for name in layers)


def _fewest(
    order: Sequence[str], holds: Callable[[Collection[str]], bool], costs: Mapping[str, float]
) -> list[str]:
    """The shortest beginning that holds, without those of its layers that it holds without."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if holds(order[:middle]):
            high = middle
        else:
            low = middle + 1
    kept = list(order[:high])
    for name in sorted(kept[:-1], key=lambda each: -costs.get(each, 0.0)):
        rest = [each for each in kept if each != name]
        if holds(rest):
            kept = rest
    return kept


def check_reached(
    trial: Trial,
    wide: Collection[str],
    mixed: Mixed,
    score: Callable[[nn.Module], float],
    before: float,
    kind: Wide,
) -> None:
    """Raise `InputError` with the nearest that there is, if the drop holds for no set of layers, or
    in float alone."""
    if mixed.accuracy_drop is None or len(wide) < len(trial.layers):
        return
    trial.narrow(trial.layers[:0])
    nothing = (before - score(trial.graph)) * 100
    if kind != "float" and nothing <= mixed.accuracy_drop + 1e-9:
        return
    drops = []
    for name in trial.layers:
        trial.narrow([name])
        drops.append(((before - score(trial.graph)) * 100, name))
    drop, nearest = min(drops)
    raise InputError(
        f"no layer can be narrow within {mixed.accuracy_drop:g} points",
        where="quantize.mixed.accuracy_drop",
        allowed=f"{drop:.2f} or more, which '{nearest}' alone loses",
        hint="method = 'qat' trains what rounding loses; edgekd diagnose shows where it is lost",
    )
