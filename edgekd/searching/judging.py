"""Trials against budgets: which files meet them, by how much the others miss, and what is best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.measure.budgets import budget_named, judge, run_verdict
from edgekd.searching.outcome import FileOutcome, Trial
from edgekd.values.measurement import Judgement, Kind, Verdict

Limits = Mapping[str, Mapping[str, float]]
"""Each target's budgets."""

QUALITY = ("accuracy", "accuracy_drop")
"""Budgets that the accuracy speaks for; all others are costs."""

INTERVAL_ONLY = 0.01
"""How far a value misses a limit that only the end of its interval is beyond."""

STRAYED = 1.0
"""How far a file misses that does not compute what its reference does."""


@dataclass(frozen=True)
class Point:
    """One file of one trial, judged. `by_budget` has the judgements by the budgets' names, `costs`
    the value of each budget that is a cost, in the budget's own unit, None if nothing measured it.
    `violation` sums by which shares of the limits the budgets are missed."""

    trial: int
    file: FileOutcome
    by_budget: dict[str, Judgement]
    verdict: Verdict
    costs: dict[str, float | None]
    violation: float

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """The judgements in the budgets' order."""
        return tuple(self.by_budget.values())

    @property
    def score(self) -> float:
        """The accuracy that the search chooses by."""
        return self.file.score if self.file.score is not None else -1.0


def points_of(
    trials: Sequence[Trial], target: str, limits: Limits, accept: Sequence[Kind]
) -> list[Point]:
    """Every file for a target of the finished trials whose accuracy is known, judged."""
    return [
        _point(trial.number, file, limits[target], accept)
        for trial in trials
        if trial.state == "finished"
        for file in trial.files
        if file.target == target and file.score is not None
    ]


def _point(
    trial: int, file: FileOutcome, limits: Mapping[str, float], accept: Sequence[Kind]
) -> Point:
    if file.only_size:
        limits = {name: limit for name, limit in limits.items() if name.startswith("size")}
    judged = dict(zip(limits, judge(limits, file.measurements, accept), strict=True))
    verdict = "fail" if file.parity == "fail" else run_verdict(judged.values())
    violation = sum(map(excess, judged.values())) + STRAYED * (file.parity == "fail")
    costs = {name: judgement.value for name, judgement in judged.items() if name not in QUALITY}
    return Point(trial, file, judged, verdict, costs, violation)


def excess(judgement: Judgement) -> float:
    """By which share of its limit a budget is missed; 0 if it is met or nothing is known. An
    accuracy drop counts in percentage points, since its limit may be 0."""
    value, limit = judgement.value, judgement.limit
    if judgement.verdict == "pass" or value is None:
        return 0.0
    scale = 1.0 if judgement.metric == "accuracy_drop" else limit
    beyond = (limit - value if budget_named(judgement.metric).at_least else value - limit) / scale
    return max(beyond, INTERVAL_ONLY if judgement.verdict == "fail" else 0.0)


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, from the most accurate on: none is at least as accurate and
    as cheap in every cost and better in one. Of equal points the first stays."""
    kept: list[Point] = []
    for point in points:
        merits = _merits(point)
        rivals = [_merits(other) for other in points]
        beaten = any(_dominates(rival, merits) for rival in rivals)
        if not beaten and merits not in [_merits(other) for other in kept]:
            kept.append(point)
    return sorted(kept, key=lambda point: (-point.score, _merits(point)[1:]))


def _merits(point: Point) -> tuple[float, ...]:
    """What is to be small: the negative accuracy, and the costs; a file that does not compute
    what it should is worst in everything."""
    if point.file.parity == "fail":
        return (float("inf"),) * (1 + len(point.costs))
    costs = (float("inf") if value is None else value for value in point.costs.values())
    return (-point.score, *costs)


def _dominates(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    if len(first) != len(second):  # judged by other budgets: the one is stored, the other runs
        return False
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def best_of(points: Sequence[Point]) -> Point | None:
    """The most accurate point that meets every budget, the cheapest among equals; one whose
    budgets are not all verified only if there is no other. Files that are not run are not chosen,
    since another file is run in their place."""
    for verdict in ("pass", "unverified"):
        meeting = [
            point for point in points if point.verdict == verdict and not point.file.only_size
        ]
        meeting = [point for point in meeting if point.violation == 0.0]
        if meeting:
            return min(meeting, key=lambda point: (-point.score, _cost_shares(point), point.trial))
    return None


def _cost_shares(point: Point) -> float:
    """The costs as shares of their limits, summed."""
    return sum(
        judgement.value / judgement.limit
        for judgement in point.judgements
        if judgement.metric not in QUALITY and judgement.value is not None
    )


def nearest_of(points: Sequence[Point]) -> Point | None:
    """The point that misses the budgets by least."""
    run = [point for point in points if not point.file.only_size]
    return min(run, key=lambda point: (point.violation, -point.score), default=None)


def reachable(points: Sequence[Point]) -> dict[str, float]:
    """The best value that any point reaches of each budget, whatever its other values."""
    best: dict[str, float] = {}
    for point in points:
        if point.file.parity == "fail":
            continue
        for name, judgement in point.by_budget.items():
            value = judgement.value
            if value is None:
                continue
            choose = max if budget_named(name).at_least else min
            best[name] = choose(best.get(name, value), value)
    return best


def lead(points: Sequence[Point]) -> Point | None:
    """The point that stands for a trial on a target: the best that meets the budgets, or else the
    nearest."""
    return best_of(points) or nearest_of(points)
