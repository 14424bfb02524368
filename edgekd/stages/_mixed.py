"""Mixed precision of a stage: which layers stay wide, in which type, and what that costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from edgekd.errors import InputError
from edgekd.network.cost import layer_costs
from edgekd.network.evaluation import evaluate
from edgekd.quant.mixed import (
    Mixed,
    Trial,
    Wide,
    check_reached,
    extra,
    sensitivities,
    widened,
)
from edgekd.stages._calibration_set import calibration_of
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate

Variants = Mapping[str, Callable[[], Candidate]]
"""Makes the candidate whose every layer has a type: "int8", "int16" or "float"."""


@dataclass(frozen=True)
class Kept:
    """The layers that stay in a wider type (`kind`), and a note for the lineage."""

    kind: Wide
    layers: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class _Costs:
    """What each layer costs more when it is wide, by type; `words` say how that is known."""

    extra: Mapping[Wide, Mapping[str, float]]
    words: str = ""
    unit: str = ""


def keep_wide(
    mixed: Mixed,
    trials: Mapping[Wide, Trial],
    candidate: Candidate,
    context: Context,
    variants: Variants | None = None,
) -> Kept:
    """The layers that stay wide. `trials` has one for each type that they may have, the default
    first. Where a device measures `variants`, the layers and the type that take least time are
    chosen; else the layers with fewest multiply-accumulates, in the first type that can hold the
    drop.

    Raises `InputError` if no set of layers holds the drop.
    """
    samples, module = calibration_of(context), candidate.module
    score = partial(evaluate, samples=context.data.validation)
    before = 0.0 if mixed.accuracy_drop is None else score(module)
    default = next(iter(trials))
    costs = _by_macs(candidate, tuple(trials))
    if variants is not None and not _holds(mixed, trials[default], score, before):
        costs = _by_time(candidate, context, tuple(trials), variants) or costs
    found: list[tuple[float, Kept]] = []
    faults: list[InputError] = []
    for kind, trial in trials.items():
        if kind not in costs.extra:
            continue
        errors = sensitivities(trial, module, samples, context.progress)
        wide = widened(trial, errors, mixed, score, before, costs.extra[kind])
        try:
            check_reached(trial, wide, mixed, score, before, kind)
        except InputError as fault:
            faults.append(fault)
            continue
        cost = extra(wide, costs.extra[kind])
        found.append((cost, Kept(kind, wide, _note(kind, wide, errors))))
        if not costs.words:
            break  # multiply-accumulates don't compare types
    if not found:
        raise faults[0]
    best = min(found, key=lambda each: each[0])[1]
    return Kept(best.kind, best.layers, best.note + _chosen(mixed, costs, found))


def _holds(mixed: Mixed, trial: Trial, score: Callable[..., float], before: float) -> bool:
    """Whether nothing needs to be wide."""
    if mixed.accuracy_drop is None:
        return True
    trial.narrow(trial.layers)
    return (before - score(trial.graph)) * 100 <= mixed.accuracy_drop + 1e-9


def _by_macs(candidate: Candidate, kinds: tuple[Wide, ...]) -> _Costs:
    rows = layer_costs(candidate.module, candidate.example)
    macs = {row.name: float(row.macs) for row in rows}
    return _Costs(dict.fromkeys(kinds, macs))


def _by_time(
    candidate: Candidate, context: Context, kinds: tuple[Wide, ...], variants: Variants
) -> _Costs | None:
    """What each layer takes more than in int8 in each of the types, as measured in whole files."""
    context.progress("time of layers", 0, 1 + len(kinds))
    narrow = context.time_layers(variants["int8"]())
    if narrow is None:
        return None
    found: dict[Wide, dict[str, float]] = {}
    for number, kind in enumerate(kinds, 1):
        context.progress("time of layers", number, 1 + len(kinds))
        timed = context.time_layers(variants[kind]())
        if timed is None or timed.where != narrow.where:
            continue
        found[kind] = {
            name: max(0.0, value - narrow.layers[name])
            for name, value in timed.layers.items()
            if name in narrow.layers
        }
    if kinds[0] not in found:
        return None
    return _Costs(found, f"measured in {narrow.where}", narrow.unit)


def _note(kind: Wide, wide: tuple[str, ...], errors: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {errors[name]:.2g}" for name in wide) or "none"
    rest = max((error for name, error in errors.items() if name not in wide), default=0.0)
    return f"; kept in {kind} (output error): {shown}; at most {rest:.2g} for the others"


def _chosen(mixed: Mixed, costs: _Costs, found: list[tuple[float, Kept]]) -> str:
    """How the layers were chosen, where some were."""
    if mixed.accuracy_drop is None or not any(kept.layers for _, kept in found):
        return ""
    if not costs.words:
        return "; chosen by multiply-accumulates, as nothing measured the layers' time"
    each = " or ".join(
        f"{cost:.3g} {costs.unit} for {len(kept.layers)} in {kept.kind}" for cost, kept in found
    )
    return f"; chosen by time, {costs.words}: {each} more than in int8"
