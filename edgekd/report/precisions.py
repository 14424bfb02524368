"""Which precision of each format is chosen, where a run made several: the fastest file that holds
every budget. Where no budget limits accuracy, its accuracy has to lie within the interval of the
float file's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report.numbers import RANKS, measured_text, metric_text, percent, verdict_of
from edgekd.report.values import ArtifactReport, PrecisionChoice, TargetReport
from edgekd.values.backend_lookup import backend_info, backend_of
from edgekd.values.measurement import Measurement

FLOAT = "fp32"
COSTS = ("latency_ms_p50", "energy_estimate_mj")
"""What decides, the first that a file has a value of: how long it takes, or where nothing was
measured, an estimate of the energy that its arithmetic and its memory traffic take."""


def with_choices(target: TargetReport) -> TargetReport:
    """The target with a choice for each format whose files differ in precision."""
    groups: dict[str, list[ArtifactReport]] = {}
    for artifact in target.artifacts:
        groups.setdefault(artifact.format, []).append(artifact)
    several = [files for files in groups.values() if len({each.precision for each in files}) > 1]
    choices: dict[str, PrecisionChoice] = {}
    for files in sorted(several, key=lambda files: _cost_of(files) != COSTS[0]):
        choices[files[0].format] = _following(files, choices) or _choice(files)
    return target.model_copy(update={"choices": tuple(choices.values())})


def _following(
    files: Sequence[ArtifactReport], choices: dict[str, PrecisionChoice]
) -> PrecisionChoice | None:
    """The precision that was chosen for the files that these are made of, or made into, where these
    are not run themselves."""
    if _cost_of(files) == COSTS[0]:
        return None
    backend = backend_of(files[0].format)
    related = {backend, backend_info(backend).follows} if backend else set()
    for choice in choices.values():
        same = [each for each in files if each.precision == choice.precision]
        if backend_of(choice.format) in related and same:
            reason = f"{choice.precision} is chosen, as for {choice.format}"
            return _chosen(same[0], reason)
    return None


@dataclass(frozen=True)
class _Compared:
    """One file: what it costs with its interval, and what speaks against it, if anything."""

    file: ArtifactReport
    cost: float
    interval: tuple[float, float]
    fault: str


def _choice(files: Sequence[ArtifactReport]) -> PrecisionChoice:
    metric = _cost_of(files)
    rule = _rule(files)
    compared = [_compared(each, files, metric) for each in files]
    fit = [each for each in compared if not each.fault]
    listed = "; ".join(_line(each, metric) for each in compared)
    if not fit:
        best = max(files, key=lambda each: (each.accuracy or 0.0, -each.bytes))
        why = f"{best.precision} is chosen, the most accurate: none holds {rule}: {listed}"
        return _chosen(best, why)
    ranked = [RANKS[verdict_of([each.file])] for each in fit]
    fit = [each for each, rank in zip(fit, ranked, strict=True) if rank == min(ranked)]
    fastest = min(fit, key=lambda each: each.cost)
    as_fast = [each for each in fit if each.interval[0] <= fastest.interval[1]]
    best = min(as_fast, key=lambda each: each.file.bytes).file
    what = "the fastest" if metric == COSTS[0] else "the least estimated energy"
    if not metric:
        what = "the smallest, because no latency was measured,"
    elif best is not fastest.file:
        what = f"the smallest of those as fast as {fastest.file.precision}"
    return _chosen(best, f"{best.precision} is chosen, {what} that holds {rule}: {listed}")


def _chosen(file: ArtifactReport, reason: str) -> PrecisionChoice:
    return PrecisionChoice(
        format=file.format, precision=file.precision, path=file.path, reason=reason
    )


def _cost_of(files: Sequence[ArtifactReport]) -> str:
    """The first metric that a file has a value of; empty if there is none."""
    named = [each for each in COSTS if any(file.measurement(each) for file in files)]
    return named[0] if named else ""


def _compared(file: ArtifactReport, files: Sequence[ArtifactReport], metric: str) -> _Compared:
    fault = _fault(file, files)
    if not metric:
        return _Compared(file, float(file.bytes), (file.bytes, file.bytes), fault)
    found = file.measurement(metric)
    if found is None or found.value is None:
        return _Compared(file, math.inf, (math.inf, math.inf), fault or f"no {metric}")
    found = _relative(file, files) or found
    assert found.value is not None
    low, high = found.ci or (found.value, found.value)
    return _Compared(file, found.value, (low, high), fault)


def _relative(file: ArtifactReport, files: Sequence[ArtifactReport]) -> Measurement | None:
    """The latency as a share of the teacher's, which repeats better than the latency itself; None
    if a file has no such share."""
    timed = [each for each in files if each.measurement(COSTS[0])]
    if not timed or not all(each.measurement("latency_ratio") for each in timed):
        return None
    ratio = file.measurement("latency_ratio")
    assert ratio is not None
    assert ratio.value is not None
    low, high = ratio.ci or (ratio.value, ratio.value)
    return ratio.model_copy(update={"value": 1 / ratio.value, "ci": (1 / high, 1 / low)})


def _limits_accuracy(file: ArtifactReport) -> bool:
    return any(budget.metric.startswith("accuracy") for budget in file.budgets)


def _rule(files: Sequence[ArtifactReport]) -> str:
    """What a file has to hold to be chosen."""
    if any(map(_limits_accuracy, files)):
        return "every budget"
    reference = next((each for each in files if each.precision == FLOAT), None)
    if reference is None or reference.accuracy_ci is None:
        return "every budget (none limits accuracy)"
    low = percent(reference.accuracy_ci[0])
    return f"every budget and, as none limits accuracy, the float file's interval (from {low})"


def _fault(file: ArtifactReport, files: Sequence[ArtifactReport]) -> str:
    """Why a file can't be chosen."""
    if file.parity is not None and file.parity.verdict == "fail":
        return "parity fails"
    broken = [budget.metric for budget in file.budgets if budget.verdict == "fail"]
    if broken:
        return f"breaks {', '.join(broken)}"
    reference = next((each for each in files if each.precision == FLOAT), None)
    if reference is None or reference.accuracy_ci is None or _limits_accuracy(file):
        return ""
    if file.accuracy is None:
        return file.reasons.get("accuracy", "no accuracy")
    return "" if file.accuracy >= reference.accuracy_ci[0] else "below the float file's interval"


def _line(compared: _Compared, metric: str) -> str:
    """int8 2.1 ms, 0.30 points lost (breaks size_kb)"""
    file = compared.file
    found = file.measurement(metric) if metric else None
    cost = measured_text(found)
    if not metric:
        cost = metric_text("size_bytes", float(file.bytes))
    lost = "" if file.accuracy_drop is None else f", {_points(file.accuracy_drop)}"
    fault = f" ({compared.fault})" if compared.fault else ""
    return f"{file.precision} {cost}{lost}{fault}"


def _points(drop: float) -> str:
    word = "lost" if drop >= 0 else "won"
    return f"{abs(drop):.2f} points {word}"
