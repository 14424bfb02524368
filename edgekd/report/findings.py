"""Diagnostics as the page shows them: each a table of numbers, and a plot if it has one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekd.measure.diagnostics import Finding, Line
from edgekd.report import plots
from edgekd.report.numbers import MISSING, count_text
from edgekd.report.values import Report


@dataclass(frozen=True)
class Shown:
    """One finding of one target: its table rows (name, student, its interval, teacher, its
    interval, reason), and the plot as SVG, empty if there is none."""

    target: str
    finding: Finding
    rows: tuple[tuple[str, str, str, str, str, str], ...]
    svg: str


def shown(report: Report) -> Iterator[Shown]:
    """Every finding, target by target, those about files first."""
    number = 0
    for target in report.targets:
        files = [one for artifact in target.artifacts for one in artifact.diagnostics]
        for finding in (*files, *target.diagnostics):
            number += 1
            rows = tuple(_row(line) for line in finding.lines)
            yield Shown(target.title or target.name, finding, rows, _drawn(finding, number))


def _row(line: Line) -> tuple[str, str, str, str, str, str]:
    mine, theirs = (
        "" if ci is None else " to ".join(value_text(end, line.unit) for end in ci)
        for ci in (line.ci, line.teacher_ci)
    )
    teacher = value_text(line.teacher, line.unit) if line.teacher is not None else ""
    return line.name, value_text(line.student, line.unit), mine, teacher, theirs, line.reason


def value_text(value: float | None, unit: str) -> str:
    """A value formatted for reading: shares in percent, points with their sign."""
    if value is None:
        return MISSING
    if unit == "share":
        return f"{100 * value:.2f} %"
    if unit == "points":
        return f"{value:+.2f} pt"
    if unit == "inferences":
        return count_text(value)
    names = {"joules": "J", "grams": "g CO2e", "nats": "nats"}
    return f"{value:.4g} {names.get(unit, '')}".strip()


def _drawn(finding: Finding, number: int) -> str:
    plot = finding.plot
    if plot is None or not any(curve.x for curve in plot.curves):
        return ""
    lines = [(curve.name, curve.x, curve.y) for curve in plot.curves]
    title = f"{finding.name} of {Path(finding.of).name}: {plot.y} against {plot.x}"
    return plots.lines(lines, plot.x, plot.y, f"diagnostic{number}", title, plot.diagonal)
