"""A search in the terminal: its fronts, the chosen points, and how far it has come."""

import statistics
from pathlib import Path

from edgekd.measure.budgets import EXIT_CODES, format_budget
from edgekd.report import numbers
from edgekd.searching.correcting import TABLE
from edgekd.searching.outcome import folder_of
from edgekd.searching.page import costs_of, states_text
from edgekd.searching.result import FrontPoint, SearchResult, TargetResult

Row = tuple[str, ...]


def result_lines(result: SearchResult) -> list[str]:
    """Each target's front as a table, what was chosen, and the trials that failed."""
    lines = [f"{len(result.trials)} trials: {states_text(result) or 'none yet'}"]
    for target in result.targets:
        lines += ["", *_target_lines(target)]
    failures = dict.fromkeys(
        f"trial {trial.number} failed: {trial.message}" + (f" ({trial.hint})" if trial.hint else "")
        for trial in result.trials
        if trial.state == "failed"
    )
    stopped = [str(trial.number) for trial in result.trials if trial.state == "stopped"]
    early = [f"stopped early: trials {', '.join(stopped)}"] if stopped else []
    early += [
        f"trial {trial.number} refused: {trial.message}"
        for trial in result.trials
        if trial.state == "refused" and trial.where == TABLE
    ]
    return [*lines, *([""] if failures or early else []), *early, *failures, *result.notes]


def _target_lines(target: TargetResult) -> list[str]:
    limits = ", ".join(format_budget(*limit) for limit in target.limits.items())
    rows: list[Row] = [
        ("", "recipe", "file", "accuracy", "validation", "size", *costs_of(target), "budgets")
    ]
    rows += [_row(target, position, point) for position, point in enumerate(target.front)]
    table = _aligned(rows) if target.front else []
    notes = [f"{target.name}: {note}" for note in target.notes]
    notes += [f"{target.name}: {use.text}" for use in target.tables]
    notes += [f"{target.name}: {error.text}" for error in target.predictions]
    return [f"{target.name}: {limits or 'no budgets'}", *table, *notes, *_chosen_lines(target)]


def _row(target: TargetResult, position: int, point: FrontPoint) -> Row:
    costs = [point.costs.get(cost) for cost in costs_of(target)]
    return (
        "*" if position == target.chosen else "",
        point.recipe,
        point.name,
        numbers.percent(point.accuracy),
        numbers.percent(point.validation),
        numbers.bytes_text(point.bytes),
        *(numbers.MISSING if cost is None else f"{cost:.4g}" for cost in costs),
        point.verdict,
    )


def _chosen_lines(target: TargetResult) -> list[str]:
    best, proven = target.best, target.proven
    if best is not None and proven is not None:
        same = "the same file" if proven.same_bytes else "another file"
        accuracy = numbers.percent(proven.accuracy)
        return [
            f"{target.name}: chosen {best.recipe}, {best.name}; run by itself ({same}): accuracy "
            f"{accuracy}, {proven.verdict}; see {proven.folder}/report.html"
        ]
    if best is not None:
        return [f"{target.name}: best so far {best.recipe}, {best.name}, {best.verdict}"]
    if target.nearest is None:
        return [f"{target.name}: no trial gave a file whose accuracy is known"]
    missed = [budget for budget in target.nearest.budgets if budget.verdict != "pass"]
    gaps = ", ".join(
        f"{budget.metric} = {'unknown' if budget.value is None else f'{budget.value:.4g}'}, "
        f"limit {budget.limit:g}"
        for budget in missed
    )
    reached = ", ".join(f"{name} {value:.4g}" for name, value in target.reachable.items())
    return [
        f"{target.name}: no point meets every budget; the nearest is {target.nearest.recipe}, "
        f"{target.nearest.name}: {gaps or 'its outputs differ from the reference'}",
        f"{target.name}: reached at best, each by itself: {reached}",
    ]


def _aligned(rows: list[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def broken_lines(result: SearchResult) -> list[str]:
    """A line for each target without a point that meets its budgets, for a script's log."""
    return [
        line
        for target in result.targets
        if target.verdict != "pass"
        for line in _chosen_lines(target)[:1]
    ]


def exit_code(result: SearchResult) -> int:
    """What the command ends with: as a run's verdict."""
    return EXIT_CODES[result.verdict]


def status_lines(result: SearchResult, folder: Path, busy: bool) -> list[str]:
    """How far a search has come: what runs, what it found, and the time left."""
    done, most = len(result.trials), result.wanted_trials
    spent = sum(trial.seconds for trial in result.trials)
    state = "running" if busy else ("finished" if result.state == "finished" else "stopped")
    of = f" of {most}" if most else ""
    lines = [f"{state}: {done}{of} trials in {spent / 60:.1f} minutes"]
    if busy:
        known = {folder_of(trial.number) for trial in result.trials}
        begun = [f"trials/{path.name}" for path in sorted((folder / "trials").glob("*"))]
        lines += [f"running: {name}" for name in begun if name not in known]
    left = _minutes_left(result)
    if left is not None and state != "finished":
        lines.append(f"about {left:.1f} minutes left")
    if state == "stopped":
        lines.append("run the same command again to continue")
    return [*lines, *result_lines(result)]


def _minutes_left(result: SearchResult) -> float | None:
    """What is left of the time, or of the trials at a middling length; None before the first."""
    if not result.trials:
        return None
    spent = sum(trial.seconds for trial in result.trials)
    usual = statistics.median(trial.seconds for trial in result.trials)
    ends = []
    if result.wanted_trials is not None:
        ends.append(max(0, result.wanted_trials - len(result.trials)) * usual / 60)
    if result.wanted_hours is not None:
        ends.append(max(0.0, result.wanted_hours * 60 - spent / 60))
    return min(ends, default=None)
