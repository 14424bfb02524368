"""The type of each layer's weights by an integer program: what loses least within a size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule

from edgekd.errors import InputError
from edgekd.quant.mixed import Mixed
from edgekd.quant.narrow import Narrow
from edgekd.quant.weight_only import stored_bytes
from edgekd.quant.weight_options import (
    Chosen,
    OptionTrial,
    OutputError,
    WeightOption,
)
from edgekd.stages._calibration_set import calibration_of
from edgekd.stages._knapsack import knapsack
from edgekd.stages._option_errors import kept_option_errors
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate

KB = 1e3


@dataclass(frozen=True)
class Types:
    """The types of layers' weights without those in float, how many weights share a scale (by
    layer, or everywhere), and a note for the lineage."""

    dtypes: Mapping[str, Narrow]
    groups: int | Mapping[str, int]
    note: str = ""


def choose_bits(
    mixed: Mixed,
    options: Sequence[WeightOption],
    whole: GraphModule,
    layers: Sequence[str],
    candidate: Candidate,
    context: Context,
) -> Types:
    """The types with the least sum of output errors, each layer's measured alone, whose weights
    take at most `mixed.weights_kb` together with all other parameters. Of that choice and the types
    that fit everywhere, the one counts whose joint error is least.

    Raises `InputError` with what is reachable if nothing fits.
    """
    assert mixed.weights_kb is not None
    trial = OptionTrial(whole, layers)
    error = OutputError(candidate.module, calibration_of(context))
    sizes = {
        name: [option.bits(weight) / 8 / KB for option in options]
        for name, weight in trial.weights.items()
    }
    rest = _rest_kb(whole, trial)
    least = rest + sum(map(min, sizes.values()))
    if least > mixed.weights_kb:
        raise InputError(
            f"the weights take at least {least:.1f} kB, all of them in {options[0].text}",
            where="quantize.mixed.weights_kb",
            allowed=f"{least:.1f} or more, found {mixed.weights_kb:g}",
            hint="prune or factorize first, or start from a dtype of fewer bits",
        )
    errors = kept_option_errors(trial, options, error, context)
    places = knapsack(list(errors.values()), list(sizes.values()), mixed.weights_kb - rest)
    assert places is not None
    choices = [dict(zip(errors, (options[place] for place in places), strict=True))]
    for place, option in enumerate(options):
        if rest + sum(own[place] for own in sizes.values()) <= mixed.weights_kb:
            choices.append(dict.fromkeys(errors, option))
    best = min(choices, key=lambda chosen: _joint(trial, chosen, error))
    note = _note(best, best is choices[0], mixed, _joint(trial, best, error))
    dtypes = {name: each.narrow for name, each in best.items() if each.narrow is not None}
    return Types(dtypes, {name: best[name].group for name in dtypes}, note)


def _joint(trial: OptionTrial, chosen: Chosen, error: OutputError) -> float:
    """The outputs' error with all layers in their types."""
    trial.set(chosen)
    return error(trial.graph)


def _rest_kb(whole: GraphModule, trial: OptionTrial) -> float:
    """What everything besides the layers' weights takes."""
    own = sum(weight.numel() * weight.element_size() for weight in trial.weights.values())
    return (stored_bytes(whole) - own) / KB


def _note(chosen: Chosen, by_program: bool, mixed: Mixed, error: float) -> str:
    """Which layers have which type, the most frequent type by its number alone."""
    by_type: dict[str, list[str]] = {}
    for name, option in chosen.items():
        by_type.setdefault(option.text, []).append(name)
    most = max(by_type, key=lambda text: len(by_type[text]))
    shown = "; ".join(
        f"{text}: {f'{len(names)} layers' if text == most else ', '.join(names)}"
        for text, names in sorted(by_type.items())
    )
    how = "by an integer program" if by_program else "one type throughout, which errs less"
    return f"; types for at most {mixed.weights_kb:g} kB, {how} (output error {error:.2g}): {shown}"
