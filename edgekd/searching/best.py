"""Proves the best point of a target: runs its recipe by itself and measures the file in full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgekd.errors import EdgekdError
from edgekd.measure.budgets import run_verdict
from edgekd.report.values import Report
from edgekd.run.compress import run_plan
from edgekd.run.plan.make import make_plan
from edgekd.searching.judging import Point, best_of
from edgekd.searching.outcome import Trial
from edgekd.searching.request import Search
from edgekd.searching.result import Proven
from edgekd.searching.trial import request_for, share_stages
from edgekd.stages import Progress

CANDIDATES = 3
"""How many points are tried if the full measurement breaks a budget that the brief one met."""


@dataclass(frozen=True)
class Best:
    """The chosen point with its proof; None if no point meets the budgets, `notes` then say of
    each candidate why it does not."""

    point: Point | None
    proven: Proven | None
    notes: tuple[str, ...] = ()


def prove_best(
    search: Search,
    trials: Sequence[Trial],
    target: str,
    points: Sequence[Point],
    progress: Progress,
    say: Callable[[str], None],
    quick: bool,
) -> Best:
    """The best point whose file meets the budgets in a run of its own."""
    rest, notes = list(points), []
    for _ in range(CANDIDATES):
        point = best_of(rest)
        if point is None:
            break
        say(f"{target}: measure {point.file.name} of trial {point.trial}")
        try:
            proven = _proven(search, trials, target, point, progress, quick)
        except EdgekdError as error:
            notes.append(f"trial {point.trial}, {point.file.name}: {error.faults[0].message}")
        else:
            if proven.verdict == point.verdict or proven.verdict == "pass":
                return Best(point, proven, tuple(notes))
            broken = [judgement for judgement in proven.budgets if judgement.verdict != "pass"]
            reasons = "; ".join(f"{judgement.metric}: {judgement.reason}" for judgement in broken)
            notes.append(f"trial {point.trial}, {point.file.name}, measured in full: {reasons}")
        rest = [other for other in rest if other is not point]
    return Best(None, None, tuple(notes))


def _proven(
    search: Search,
    trials: Sequence[Trial],
    target: str,
    point: Point,
    progress: Progress,
    quick: bool,
) -> Proven:
    trial = next(trial for trial in trials if trial.number == point.trial)
    folder = f"best/{target}"
    request = request_for(search, search.space.recipe_of(trial.parameters), folder)
    targets = tuple(kept for kept in request.targets if kept.name == target)
    request = replace(request, targets=targets, quick=quick, baseline=True)
    share_stages(request.out, search.out)
    report = run_plan(make_plan(request), progress)
    return _proof_of(report, point, folder)


def _proof_of(report: Report, point: Point, folder: str) -> Proven:
    """The proof from the report of a run of the same recipe."""
    (target,) = report.targets
    (artifact,) = [
        artifact
        for artifact in target.artifacts
        if artifact.format == point.file.format and artifact.path == point.file.path
    ]
    strayed = artifact.parity is not None and artifact.parity.verdict == "fail"
    return Proven(
        folder=folder,
        verdict="fail" if strayed else run_verdict(artifact.budgets),
        accuracy=artifact.accuracy,
        same_bytes=artifact.sha256 == point.file.sha256,
        budgets=artifact.budgets,
    )
