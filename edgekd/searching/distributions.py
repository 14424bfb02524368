"""A recipe's ranges as Optuna's distributions."""

from typing import Any

from edgekd.searching.space import Scalar
from edgekd.searching.storage import import_optuna
from edgekd.values.ranges import OneOf, Range


def suggest(trial: Any, place: str, among: Range) -> Scalar:
    """The value that an Optuna trial takes of a range."""
    if isinstance(among, OneOf):
        label: Scalar = trial.suggest_categorical(place, list(among.labels))
        return label
    if among.whole:
        step = int(among.step or 1)
        whole: int = trial.suggest_int(
            place, int(among.low), int(among.high), step=step, log=among.log
        )
        return whole
    number: float = trial.suggest_float(
        place, among.low, among.high, step=among.step, log=among.log
    )
    return number


def distribution(among: Range) -> Any:
    """The distribution that `suggest` takes a value of."""
    made = import_optuna().distributions
    if isinstance(among, OneOf):
        return made.CategoricalDistribution(list(among.labels))
    if among.whole:
        return made.IntDistribution(
            int(among.low), int(among.high), among.log, int(among.step or 1)
        )
    return made.FloatDistribution(among.low, among.high, among.log, among.step)


def contains(among: Range, value: Scalar) -> bool:
    """Whether a range has a value."""
    accepted = distribution(among)
    try:
        return bool(accepted._contains(accepted.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
