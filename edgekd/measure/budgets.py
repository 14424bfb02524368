"""Budgets: their names and units, and whether measurements meet them.

A budget's name is a metric and a unit, `latency_ms`, and its value is a limit in that unit. What a
task measures beside its accuracy (`bleu`, `word_error_rate`) is a budget too. Every limit is an
upper limit, except that of `accuracy` and of those that a task counts as better when they are
larger. The rules:

- A budget is held against the unfavourable end of the measurement's interval, or against its
  value if it has no interval.
- `measured` proves that a budget is met or broken. A weaker kind (`simulated`, `estimated`) does
  so only if the user accepts it by name; otherwise the budget is unverified, even if the number
  is beyond the limit: what can't prove one can't prove the other. The reason says so.
- Of several measurements, the strongest kind that counts decides, and among equals the worst.
"""

# code-key: presents

import functools
import math
from collections.abc import Iterable, Mapping, Sequence

from edgekd.errors import EdgekdError, InputError, nearest
from edgekd.measure.parity import Parity
from edgekd.values.measurement import Judgement, Kind, Measurement, Verdict
from edgekd.values.tables import Value

EXIT_CODES: Mapping[Verdict, int] = {"pass": 0, "fail": 1, "unverified": 4}
ACCEPTABLE: tuple[Kind, ...] = ("simulated", "estimated")

_TIME = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {"bytes": 1, "kb": 1e3, "kib": 2**10, "mb": 1e6, "mib": 2**20, "gb": 1e9, "gib": 2**30}
_ENERGY = {"uj": 1e-3, "mj": 1.0, "j": 1e3}
_QUANTILES = ("p50", "p90", "p99")


class Budget(Value):
    """One limit. `metric` and `limit` are in the user's unit; `limit` times `factor` is in the unit
    of the measurement, whose metric is one of `measured_as`."""

    metric: str
    limit: float
    measured_as: tuple[str, ...]
    factor: float = 1.0
    at_least: bool = False


def _known() -> dict[str, Budget]:
    """Every name that a budget may have, with a limit of 0."""
    known: dict[str, Budget] = {}
    for unit, factor in _TIME.items():
        for quantile in _QUANTILES:
            name = f"latency_{unit}_{quantile}"
            known[name] = Budget(
                metric=name, limit=0.0, measured_as=(f"latency_ms_{quantile}",), factor=factor
            )
        known[f"latency_{unit}"] = known[f"latency_{unit}_p90"]
    for unit, factor in _BYTES.items():
        for family, metrics in (
            ("memory", ("peak_memory_bytes", "memory_bytes")),
            ("size", ("size_bytes",)),
        ):
            name = f"{family}_{unit}"
            known[name] = Budget(metric=name, limit=0.0, measured_as=metrics, factor=factor)
    for unit, factor in _ENERGY.items():
        name = f"energy_{unit}"
        known[name] = Budget(metric=name, limit=0.0, measured_as=("energy_mj",), factor=factor)
    known["instructions"] = Budget(metric="instructions", limit=0.0, measured_as=("instructions",))
    known["accuracy_drop"] = Budget(
        metric="accuracy_drop", limit=0.0, measured_as=("accuracy_drop",)
    )
    known["accuracy"] = Budget(
        metric="accuracy", limit=0.0, measured_as=("accuracy",), at_least=True
    )
    return known


KNOWN: Mapping[str, Budget] = _known()
"""Costs and accuracy, by name; `budget_named` knows the tasks' metrics too."""
UNITS: Mapping[str, tuple[str, ...]] = {
    "latency": (*_TIME, *(f"{unit}_{quantile}" for unit in _TIME for quantile in _QUANTILES)),
    "memory": tuple(_BYTES),
    "size": tuple(_BYTES),
    "energy": tuple(_ENERGY),
}


@functools.cache
def task_budgets() -> Mapping[str, Budget]:
    """The budgets that are metrics of a task, by name."""
    from edgekd.data.tasks import metric_directions  # imports every task, for rare names alone

    return {
        name: Budget(metric=name, limit=0.0, measured_as=(name,), at_least=better == "higher")
        for name, better in metric_directions().items()
    }


def budget_named(name: str) -> Budget:
    """The budget of that name, with a limit of 0. Raises `InputError` if there is none."""
    if name not in KNOWN and name not in task_budgets():
        raise _unknown(name, "")
    return KNOWN[name] if name in KNOWN else task_budgets()[name]


def parse_budget(text: str, where: str = "--budget") -> tuple[str, float]:
    """Parse `latency_ms=5` into a name and a limit. Raises `InputError` for anything else."""
    name, equals, limit = (part.strip() for part in text.partition("="))
    if not equals or not name or not limit:
        raise InputError(
            f"'{text}' is not a budget", where=where, allowed="NAME=LIMIT: latency_ms=5"
        )
    try:
        value = float(limit)
    except ValueError:
        raise InputError(
            f"'{limit}' is not a number",
            where=f"{where} {name}",
            allowed="a number; the unit is part of the name, as in latency_ms=5",
        ) from None
    faults = check_budgets({name: value}, where)
    if faults:
        raise faults[0]
    return name, value


def format_budget(name: str, limit: float) -> str:
    """A budget formatted for reading: `latency_ms <= 5`."""
    return f"{name} {'>=' if budget_named(name).at_least else '<='} {limit:g}"


def check_budgets(table: Mapping[str, float], where: str) -> list[EdgekdError]:
    """Every fault in a table of budgets: unknown names and units, and impossible limits."""
    faults: list[EdgekdError] = []
    seen: dict[str, str] = {}
    for name, limit in table.items():
        place = f"{where} {name}" if where else name
        if name not in KNOWN and name not in task_budgets():
            faults.append(_unknown(name, place))
            continue
        problem = _impossible(name, limit)
        if problem:
            faults.append(InputError(f"{problem}, found {limit:g}", where=place))
        first = seen.setdefault(_subject(name), name)
        if first != name:
            faults.append(
                InputError(f"the same budget as '{first}'", where=place, hint="keep one of them")
            )
    return faults


def _subject(name: str) -> str:
    return budget_named(name).measured_as[0]


def _unknown(name: str, place: str) -> InputError:
    family, _, unit = name.partition("_")
    if family in UNITS:
        units = UNITS[family]
        found = f"unknown unit '{unit}' of {family}" if unit else f"'{family}' without its unit"
        names = [f"{family}_{one}" for one in units]
        close = nearest(name, names) or f"for example '{names[1]}'"
        return InputError(found, where=place, allowed=", ".join(units), hint=close)
    return InputError(
        f"unknown budget '{name}'",
        where=place,
        allowed=", ".join(sorted({**KNOWN, **task_budgets()})),
        hint=nearest(name, {**KNOWN, **task_budgets()}),
    )


def _impossible(name: str, limit: float) -> str:
    if not math.isfinite(limit):
        return "a limit has to be a finite number"
    if name == "accuracy":
        return "" if 0.0 < limit <= 1.0 else "an accuracy has to be above 0 and at most 1"
    if name == "accuracy_drop":
        return "" if 0.0 <= limit < 100.0 else "a drop has to be from 0 to below 100 points"
    return "" if limit > 0.0 else "a limit has to be above 0"


def merge_budgets(*tables: Mapping[str, float]) -> dict[str, float]:
    """One table from several. A later budget replaces an earlier one on the same metric, whatever
    their units: target defaults, then the recipe, then the command line."""
    merged: dict[str, tuple[str, float]] = {}
    for table in tables:
        for name, limit in table.items():
            merged[_subject(name)] = (name, limit)
    return dict(merged.values())


def check_hard_limits(
    budgets: Mapping[str, float], hard: Mapping[str, float], target: str
) -> list[EdgekdError]:
    """A fault for each budget that allows more bytes than the target has."""
    return [
        InputError(
            f"{name} = {budgets[name]:g} allows more than the {limit:,.0f} bytes that {target} has",
            where="budgets",
            allowed=f"at most {limit / KNOWN[name].factor:g}",
        )
        for hard_name, limit in hard.items()
        for name in budgets
        if name in KNOWN
        and _subject(name) == _subject(hard_name)
        and budgets[name] * KNOWN[name].factor > limit
    ]


def budgets_of(table: Mapping[str, float]) -> tuple[Budget, ...]:
    """The budgets of a table that `check_budgets` has accepted, in its order."""
    return tuple(
        budget_named(name).model_copy(update={"limit": float(limit)})
        for name, limit in table.items()
    )


def check_accept(kinds: Iterable[str]) -> list[EdgekdError]:
    """A fault for each kind that can't be accepted by name."""
    return [
        InputError(
            f"'{kind}' can't be accepted",
            where="--accept",
            allowed=", ".join(ACCEPTABLE),
            hint=nearest(kind, ACCEPTABLE),
        )
        for kind in kinds
        if kind not in ACCEPTABLE
    ]


def judge(
    budgets: Mapping[str, float],
    measurements: Sequence[Measurement],
    accept: Sequence[Kind] = (),
) -> list[Judgement]:
    """Hold each budget of one artifact against its measurements; the module's docstring has the
    rules."""
    return [_judge(budget, measurements, accept) for budget in budgets_of(budgets)]


def _judge(
    budget: Budget, measurements: Sequence[Measurement], accept: Sequence[Kind]
) -> Judgement:
    named = [one for one in measurements if one.metric in budget.measured_as]
    valued = [one for one in named if one.value is not None and math.isfinite(one.value)]
    for kind in ("measured", *(kind for kind in ACCEPTABLE if kind in accept)):
        counting = [one for one in valued if one.kind == kind]
        if counting:
            return _held(budget, max(counting, key=lambda one: _badness(budget, one)))
    for kind in ACCEPTABLE:
        weaker = [one for one in valued if one.kind == kind]
        if weaker:
            return _too_weak(budget, max(weaker, key=lambda one: _badness(budget, one)))
    reasons = dict.fromkeys(one.reason for one in named if one.reason)
    reason = "; ".join(reasons) or f"{budget.measured_as[0]} was not measured"
    return _judgement(budget, None, "unavailable", "unverified", reason)


def _unfavourable(budget: Budget, measurement: Measurement) -> float:
    """The end of the interval that counts against the budget, in the user's unit."""
    assert measurement.value is not None
    ends = (measurement.value, *(measurement.ci or ()))
    end = min(ends) if budget.at_least else max(ends)
    return float(end) / budget.factor


def _badness(budget: Budget, measurement: Measurement) -> float:
    end = _unfavourable(budget, measurement)
    return -end if budget.at_least else end


def _holds(budget: Budget, value: float) -> bool:
    return value >= budget.limit if budget.at_least else value <= budget.limit


def _held(budget: Budget, measurement: Measurement) -> Judgement:
    end = _unfavourable(budget, measurement)
    value = (measurement.value or 0.0) / budget.factor
    if _holds(budget, end):
        return _judgement(budget, value, measurement.kind, "pass", "")
    side, beyond = ("lower", "below") if budget.at_least else ("upper", "above")
    if _holds(budget, value):
        reason = f"the interval's {side} end, {end:.4g}, is {beyond} the limit"
    else:
        reason = f"{beyond} the limit"
    return _judgement(budget, value, measurement.kind, "fail", reason)


def _too_weak(budget: Budget, measurement: Measurement) -> Judgement:
    value = (measurement.value or 0.0) / budget.factor
    side = "within" if _holds(budget, _unfavourable(budget, measurement)) else "beyond"
    kind = measurement.kind
    reason = f"only {kind}, {side} the limit; --accept {kind} would let it count"
    return _judgement(budget, value, kind, "unverified", reason)


def _judgement(
    budget: Budget, value: float | None, kind: Kind, verdict: Verdict, reason: str
) -> Judgement:
    return Judgement(
        metric=budget.metric,
        limit=budget.limit,
        value=value,
        kind=kind,
        verdict=verdict,
        reason=reason,
    )


def run_verdict(judgements: Iterable[Judgement], parities: Iterable[Parity] = ()) -> Verdict:
    """The verdict of the whole run: fail if any budget or parity check fails, unverified if any
    budget is, and pass otherwise, even without budgets. `EXIT_CODES` maps it to an exit code."""
    verdicts = {judgement.verdict for judgement in judgements}
    if "fail" in verdicts or any(parity.verdict == "fail" for parity in parities):
        return "fail"
    return "unverified" if "unverified" in verdicts else "pass"
