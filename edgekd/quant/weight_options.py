"""The types that a layer's weights may have, what each takes, and what each alone does to a
network's outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from edgekd.network.evaluation import predict
from edgekd.quant.narrow import BITS, LIMIT, WIDTH, Narrow, NarrowWeight, group_size
from edgekd.quant.weight_only import narrow_weights, narrowed
from edgekd.values.progress import Progress
from edgekd.values.tree import Tree, leaves

FLOAT_BITS, SCALE_BITS = 32, 32


@dataclass(frozen=True)
class WeightOption:
    """One type; `group` weights of a channel share a scale, all of them with 0. `narrow` is None
    for weights that stay in float."""

    narrow: Narrow | None
    group: int = 0

    @property
    def text(self) -> str:
        """Its name: int4, or int4/32 with a scale for each 32 weights."""
        return "float" if self.narrow is None else self.narrow + f"/{self.group}" * (self.group > 0)

    def bits(self, weight: Tensor) -> int:
        """What a weight (o, ...) takes in a file, scales included."""
        count = weight.numel()
        if self.narrow is None:
            return FLOAT_BITS * count
        size = group_size(weight[0].numel(), self.group)
        return BITS[LIMIT[self.narrow]] * count + SCALE_BITS * (count // size)


def weight_options(narrowest: Narrow, widest: str, group: int) -> tuple[WeightOption, ...]:
    """The types from the narrowest to the widest: those of few bits also with a scale for each
    group, and for each whole channel, which takes less."""
    names = WIDTH[WIDTH.index(narrowest) : WIDTH.index(widest) + 1]
    options: list[WeightOption] = []
    for name in names:
        if name == "float":
            options.append(WeightOption(None))
            continue
        groups = (0,) if name == "int8" or not group else (0, group)
        options += [WeightOption(name, each) for each in groups]  # type: ignore[arg-type]
    return tuple(options)


Chosen = Mapping[str, WeightOption]


class OptionTrial:
    """A graph in which each layer's weights can have any type, to measure what that does."""

    def __init__(self, whole: fx.GraphModule, layers: Sequence[str]) -> None:
        self.graph = narrowed(whole, dict.fromkeys(layers, "int8"), 0, search=True)
        self._weights = narrow_weights(self.graph)
        self._sources = {name: _source(self.graph, each) for name, each in self._weights.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """Each layer's own weights."""
        return self._sources

    def set(self, chosen: Chosen) -> None:
        """Give layers these types; all others stay in float."""
        for name, module in self._weights.items():
            option = chosen.get(name, WeightOption(None))
            module.enabled = option.narrow is not None
            if option.narrow is not None:
                module.dtype, module.limit = option.narrow, LIMIT[option.narrow]
                count = self._sources[name][0].numel()
                module.size = group_size(count, option.group)


def _source(graph: fx.GraphModule, module: NarrowWeight) -> Tensor:
    """The weight that passes through a module of the graph."""
    from edgekd.quant.constants import constant_of

    node = next(
        node
        for node in graph.graph.nodes
        if node.op == "call_module" and graph.get_submodule(str(node.target)) is module
    )
    return constant_of(graph, node.args[0])


class OutputError:
    """The squared error of a network's outputs on samples, as a share of the outputs' own square:
    the mean over outputs."""

    def __init__(self, reference: nn.Module, samples: Tree) -> None:
        self.samples = samples
        self.expected = [leaf.double() for leaf in leaves(predict(reference, samples))]
        self.sizes = [leaf.square().sum().clamp_min(1e-30) for leaf in self.expected]

    def __call__(self, module: nn.Module) -> float:
        with torch.no_grad():
            found = [leaf.double() for leaf in leaves(module(self.samples))]
        shares = [
            float((leaf - wanted).square().sum() / size)
            for leaf, wanted, size in zip(found, self.expected, self.sizes, strict=True)
        ]
        return sum(shares) / len(shares)


def option_errors(
    trial: OptionTrial,
    options: Sequence[WeightOption],
    error: OutputError,
    progress: Progress,
) -> dict[str, list[float]]:
    """For each layer, the outputs' error when only that layer has each of the types."""
    found: dict[str, list[float]] = {}
    for number, name in enumerate(trial.weights):
        progress("sensitivity", number, len(trial.weights))
        errors = []
        for option in options:
            trial.set({name: option})
            errors.append(0.0 if option.narrow is None else error(trial.graph))
        found[name] = errors
    return found
