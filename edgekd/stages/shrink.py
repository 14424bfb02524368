"""The stage that chooses channels, ranks and types of weights together, within a size."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn
from torch.fx import GraphModule

from edgekd.errors import EdgekdError, InputError
from edgekd.network.taps import is_within
from edgekd.quant.export import export_graph
from edgekd.quant.faults import ignored_faults, number_faults, target_faults
from edgekd.quant.narrow import WIDTH
from edgekd.quant.support import operators, unsupported
from edgekd.quant.weight_only import finish_narrow, narrowed, stored_bytes, weighted_layers
from edgekd.quant.weight_options import (
    OptionTrial,
    OutputError,
    WeightOption,
    weight_options,
)
from edgekd.registry import STAGES
from edgekd.stages import Context, TrainingStage
from edgekd.stages._calibration_set import calibration_of
from edgekd.stages._joint import (
    Choice,
    Layer,
    Parts,
    Way,
    as_choice_of,
    best_choices,
    least_bytes,
    restricted,
)
from edgekd.stages._option_errors import kept_option_errors
from edgekd.stages._replacing import float_faults, ignore_faults, opened, plain, step_folder
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teaching import Recovery
from edgekd.values.candidate import Candidate

KB = 1e3

TRIES = 6
"""How often the limit is tightened where the network that is made takes more than was counted."""

MOST_MADE = 3
"""How many of a program's solutions are made."""

Chosen = Mapping[str, tuple[Any, WeightOption]]
"""The split of each layer, or None, and its type."""


@dataclass(frozen=True)
class _Made:
    """A network that a choice made, its float graph, and the types of that graph's layers."""

    module: nn.Module
    whole: GraphModule
    types: Mapping[str, WeightOption]

    def graph(self, search: bool) -> GraphModule:
        """The graph with its weights in their types; without `search` it is to be trained."""
        dtypes = {name: each.narrow for name, each in self.types.items() if each.narrow}
        groups = {name: self.types[name].group for name in dtypes}
        return narrowed(self.whole, dtypes, groups, search=search)


@STAGES.register()
class Shrink(TrainingStage):
    """Choose each layer's channels, rank and bits by one program, then train with the teachers.

    All weights together take at most `weights_kb` kilobytes. An integer program chooses how many
    channels each group of layers keeps, whether a layer is split into factors and of which rank,
    and the type of its weights, from `narrowest` to `widest`, such that the errors of the network's
    outputs, each measured alone on the calibration samples, add up to least. Of several solutions
    the one counts whose joint error is least. `channels`, `ranks` and `bits` say which of them may
    be chosen; without bits all weights are of the type `widest`. `criterion` scores channels as in
    prune, from `samples` training samples; layers in `ignore` keep their channels, rank and float
    weights. `group` weights share a scale where they have few bits. The smaller network is trained
    in float for half of `epochs`, then with its weights in their types; 0 leaves both out.
    Activations stay in float: the onnx backend stores the weights, other backends get the float
    model.
    """

    target_facts: ClassVar[tuple[str, ...]] = ("channel_multiple", "unsupported_ops")

    kind: Literal["shrink"] = "shrink"
    weights_kb: PositiveFloat
    channels: bool = True
    ranks: bool = True
    bits: bool = True
    narrowest: Literal["binary", "ternary", "int4", "int8"] = "int4"
    widest: Literal["int4", "int8", "float"] = "int8"
    group: int = Field(default=32, ge=0)
    criterion: str = "taylor"
    samples: PositiveInt = 512
    ignore: tuple[str, ...] = ()
    teaching: Recovery = Recovery()

    @model_validator(mode="after")
    def _some_choice(self) -> "Shrink":
        if not (self.channels or self.ranks or self.bits):
            raise ValueError("nothing may be chosen: set channels, ranks or bits")
        if WIDTH.index(self.widest) < WIDTH.index(self.narrowest):
            raise ValueError(f"widest = '{self.widest}' is narrower than '{self.narrowest}'")
        return self

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """The reasons why this can't work on a model."""
        faults = float_faults(candidate.module, candidate.form, "shrunk", where)
        if faults:
            return faults
        faults = number_faults(candidate, "int8", where) + ignore_faults(
            candidate.module, self.ignore, where
        )
        if self.bits and self.narrowest != "int8":
            faults += target_faults(self.narrowest, True, context.target, where)
        elif self.widest != "float":
            faults += target_faults("int4", True, context.target, where)
        faults += unsupported(operators(candidate, where), context.target.unsupported_ops, where)
        graph = export_graph(candidate.module, candidate.example, where)
        faults += ignored_faults(self.ignore, list(weighted_layers(graph)), where)
        if self.channels and not faults:
            faults += self._pruning.check(candidate, context, where)
        if self.teaching.epochs:
            faults += check_teaching(candidate.module, self.learning(context, where))
        return faults

    def cost(self, context: Context) -> str:
        """What is chosen, and the training."""
        what = [name for name in ("channels", "ranks", "bits") if getattr(self, name)]
        length = self.learning(context, "").length
        return f"{', '.join(what)} for at most {self.weights_kb:g} kB of weights, then {length}"

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The same choice from a few samples, without training."""
        return self.model_copy(update=self.untrained()).run(candidate, context)

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """A graph with fewer channels, factors and weights in few bits.

        Raises `InputError` with what is reachable if nothing fits.
        """
        candidate = opened(plain(candidate))
        error = OutputError(candidate.module, calibration_of(context))
        parts, make = self._parts(candidate, context, error)
        made, words = self._best(candidate, parts, make, error)
        graph = self._trained(made, candidate, context)
        finished = finish_narrow(graph)
        size = f"{stored_bytes(finished):,} bytes of weights, at most {self.weights_kb:g} kB"
        line = f"shrink: {size}; {words}; activations stay in float"
        return candidate.after(finished, line, "weights")

    def _trained(self, made: _Made, candidate: Candidate, context: Context) -> GraphModule:
        """The graph to store: half of the epochs train the smaller network in float, the others its
        weights in their types."""
        epochs = self.teaching.epochs
        if not epochs:
            return made.graph(search=True)
        learning = replace(
            self.learning(context, "shrink"),
            work=self._root(candidate, context),
            cache=context.logits_folder,
        )
        if first := epochs // 2:
            module = copy.deepcopy(made.module)
            teach(module, learning.phase("float").with_teaching(epochs=first))
            made = replace(made, whole=export_graph(module.eval(), candidate.example))
        graph = made.graph(search=False)
        teach(graph, learning.phase("types").with_teaching(epochs=epochs - first))
        return graph

    def _parts(
        self, candidate: Candidate, context: Context, error: OutputError
    ) -> tuple[Parts, "_Maker"]:
        """Everything that may be chosen, with its error alone."""
        whole = export_graph(candidate.module, candidate.example)
        layers = [name for name in weighted_layers(whole) if not is_within(name, self.ignore)]
        options = self._options
        trial = OptionTrial(whole, layers)
        errors = kept_option_errors(trial, options, error, context)
        pruning, splitting = self._pruning, self._splitting
        channels = pruning.alternatives(candidate, context) if self.channels else None
        splits: Mapping[str, Sequence[Any]] = {}
        if self.ranks:
            splits = splitting.alternatives(candidate, context, error)
        found = {}
        for name, weight in trial.weights.items():
            sides = channels.sides.get(f"{name}.weight", ()) if channels else ()
            rows = [
                Way(
                    split.share if split else 1.0,
                    option.bits(weight) / 8 / weight.numel(),
                    alone + (split.error if split else 0.0),
                    (split, option),
                )
                for split in (None, *splits.get(name, ()))
                for option, alone in zip(options, errors[name], strict=True)
            ]
            found[name] = Layer(float(weight.numel()), tuple(rows), sides)
        own = sum(weight.numel() * weight.element_size() for weight in trial.weights.values())
        widths = channels.widths if channels else {}
        return (
            Parts(widths, found, float(stored_bytes(whole) - own)),
            _Maker(candidate, context, channels, splitting),
        )

    def _best(
        self, candidate: Candidate, parts: Parts, make: "_Maker", error: OutputError
    ) -> tuple[_Made, str]:
        """The network with the least joint error of those that the program finds."""
        limit = self.weights_kb * KB
        found: list[tuple[float, int, _Made, Choice]] = []

        def size_of(choice: Choice) -> int:
            made = make(choice, parts)
            graph = made.graph(search=True)
            size = stored_bytes(finish_narrow(graph))
            if size <= limit:
                found.append((error(graph), len(found), made, choice))
            return size

        for few in self._programs(parts):
            allowed = limit
            for _ in range(TRIES):  # what is made may take a little more than was counted
                choices = best_choices(few, allowed, self._starts(few))[:MOST_MADE]
                sizes = [size_of(as_choice_of(parts, choice, few)) for choice in choices]
                if not sizes or min(sizes) <= limit:
                    break
                allowed *= limit / min(sizes)
        if not found:
            least = size_of(least_bytes(parts))
        if not found:
            raise InputError(
                f"the weights take at least {least / KB:.1f} kB",
                where="shrink.weights_kb",
                allowed=f"{least / KB:.1f} or more, found {self.weights_kb:g}",
                hint="allow a narrower type, channels or ranks, or ignore fewer layers",
            )
        joint, _, made, choice = min(found, key=lambda each: each[:2])
        return made, _words(parts, choice, joint)

    def _programs(self, parts: Parts) -> list[Parts]:
        """Everything to choose from, and channels, ranks or bits alone: errors add up only nearly,
        so that one of those may err less."""
        widest = self._options[-1]
        return [
            parts,
            restricted(parts, True, lambda way: way.what == (None, widest)),
            restricted(parts, False, lambda way: way.what[1] == widest),
            restricted(parts, False, lambda way: way.what[0] is None),
        ]

    def _starts(self, parts: Parts) -> list[Choice]:
        """What the program begins with: whole layers, each way throughout, and half the channels
        in the widest type."""
        whole = {name: width.units for name, width in parts.widths.items()}
        half = {
            name: min(width.counts, key=lambda count, own=width: abs(count - own.units / 2))  # type: ignore[misc]
            for name, width in parts.widths.items()
        }
        options = self._options
        starts = []
        for option in options:
            places = {
                name: next(
                    (place for place, way in enumerate(layer.ways) if way.what == (None, option)),
                    None,
                )
                for name, layer in parts.layers.items()
            }
            known = {name: place for name, place in places.items() if place is not None}
            if len(known) == len(places):
                starts.append(Choice(whole, known))
                if option == options[-1]:
                    starts.append(Choice(half, known))
        return starts

    @property
    def _options(self) -> tuple[WeightOption, ...]:
        narrowest: Any = self.narrowest if self.bits else self.widest
        if narrowest == "float":
            return (WeightOption(None),)
        options = weight_options(narrowest, self.widest, self.group)
        return options if self.bits else options[-1:]

    @property
    def _pruning(self) -> Any:
        """The stage that knows which channels may go; its own amount is not used."""
        make = STAGES.get("prune").make
        facts = {"criterion": self.criterion, "samples": self.samples, "ignore": self.ignore}
        return make(amount=0.1, allocation="cost", epochs=0, **facts)

    @property
    def _splitting(self) -> Any:
        """The stage that knows how layers are split; its own ranks are not used."""
        return STAGES.get("factorize").make(ignore=self.ignore, epochs=0)

    def _root(self, candidate: Candidate, context: Context) -> Path:
        facts = (self.model_dump_json(), context.seed, context.data.sha256)
        teachers = tuple((teacher.key, teacher.weight) for teacher in context.teachers)
        multiple = context.target.channel_multiple
        return step_folder(context.work, candidate.module, *facts, teachers, multiple)


@dataclass(frozen=True)
class _Maker:
    """Makes the network of a choice."""

    candidate: Candidate
    context: Context
    channels: Any
    splitting: Any

    def __call__(self, choice: Choice, parts: Parts) -> _Made:
        """The network with fewer channels and split layers, and the type of each layer."""
        module = copy.deepcopy(self.candidate.module)
        if self.channels is not None:
            module = self.channels.without(choice.kept)
        chosen = {name: layer.ways[choice.ways[name]].what for name, layer in parts.layers.items()}
        splits = {name: split for name, (split, _) in chosen.items() if split is not None}
        if splits:
            smaller = replace(self.candidate, source=module)
            module = self.splitting.split(smaller, self.context, splits)
        whole = export_graph(module.eval(), self.candidate.example)
        types = {
            layer: option
            for layer in weighted_layers(whole)
            for name, (_, option) in chosen.items()
            if is_within(layer, [name])
        }
        return _Made(module, whole, types)


def _words(parts: Parts, choice: Choice, error: float) -> str:
    """What was chosen, for the lineage."""
    cut = [
        f"{name} {choice.kept[name]} of {width.units}"
        for name, width in parts.widths.items()
        if choice.kept[name] < width.units
    ]
    ways = {name: layer.ways[choice.ways[name]].what for name, layer in parts.layers.items()}
    splits = [f"{name} {split.text}" for name, (split, _) in ways.items() if split is not None]
    by_type: dict[str, list[str]] = {}
    for name, (_, option) in ways.items():
        by_type.setdefault(option.text, []).append(name)
    most = max(by_type, key=lambda text: len(by_type[text]), default="")
    types = [
        f"{text}: {f'{len(names)} layers' if text == most else ', '.join(names)}"
        for text, names in sorted(by_type.items())
    ]
    return (
        f"channels: {', '.join(cut) or 'all stay'}; ranks: {', '.join(splits) or 'full'}; "
        f"types: {'; '.join(types)}; output error before training {error:.2g}"
    )
