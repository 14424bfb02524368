"""The report as tables in the terminal: colours on a terminal, plain text in a file or a pipe."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgekd.measurement import Judgement
from edgekd.report.numbers import (
    MISSING,
    budget_relation,
    bytes_text,
    count_text,
    gains,
    measured_text,
    metric_text,
    percent,
    times,
)
from edgekd.report.values import ArtifactReport, Report, TargetReport

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 120
STYLES = {"pass": "green", "fail": "bold red", "unverified": "yellow"}


def print_report(
    report: Report, folder: Path, stream: IO[str] | None = None, width: int | None = None
) -> None:
    """Print the whole report; the last lines are the verdict and where report.html lies."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream or sys.stdout, width=width, highlight=False, emoji=False)
    if width is None and not console.is_terminal:
        console.width = PIPE_WIDTH
    for table in (_models(report), *(_artifacts(report, target) for target in report.targets)):
        console.print(table)
    if any(artifact.budgets for _, artifact in _pairs(report)):
        console.print(_budgets(report))
    for line in _remarks(report):
        console.print(Text(f"- {line}"))
    console.print(Text.assemble("verdict: ", (report.verdict, STYLES[report.verdict])))
    _say_path(console, folder / "report.html")


def _say_path(console: "Console", path: Path) -> None:
    """In one piece, however long it is, so that it can be copied."""
    from rich.text import Text

    console.print(Text(f"report:  {path}"), soft_wrap=True)


def _table(title: str, *columns: str) -> "Table":
    """A table whose first column is words and whose others are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _row(table: "Table", *cells: str, style: str = "") -> None:
    from rich.text import Text

    # Text, not markup: a model may be called [red].
    table.add_row(*(Text(cell) for cell in cells), style=style)


def _models(report: Report) -> "Table":
    data = report.data
    title = f"{report.name or 'model'} on {data.name}, {data.test:,} test samples"
    table = _table(title, "model", "accuracy", "parameters", "MACs", "bytes", "time")
    teacher = report.teacher
    _row(
        table,
        f"teacher {teacher.name}".strip(),
        percent(teacher.accuracy),
        count_text(teacher.parameters),
        count_text(teacher.macs),
        bytes_text(teacher.bytes),
        "",
    )
    for stage in report.stages:
        _row(
            table,
            stage.kind,
            percent(stage.accuracy),
            count_text(stage.parameters),
            count_text(stage.macs),
            bytes_text(stage.bytes),
            "cached" if stage.cached else f"{stage.seconds:,.0f} s",
        )
    return table


def _artifacts(report: Report, target: TargetReport) -> "Table":
    title = f"{target.title or target.name}"
    if target.device:
        title += f", on {target.device}"
    table = _table(
        title,
        "artifact",
        "accuracy",
        "agrees",
        "bytes",
        "p50",
        "p90",
        "smaller",
        "faster",
        "parity",
    )
    rows = [("teacher", target.baseline)] if target.baseline is not None else []
    rows += [(Path(artifact.path).name, artifact) for artifact in target.artifacts]
    for name, artifact in rows:
        assert artifact is not None
        found = gains(report, target, artifact)
        _row(
            table,
            name,
            percent(artifact.accuracy),
            percent(artifact.agreement_with_teacher, 1),
            bytes_text(artifact.bytes),
            measured_text(found.p50),
            measured_text(found.p90),
            times(found.smaller),
            times(found.faster),
            parity_text(artifact),
            style="dim" if artifact is target.baseline else "",
        )
    return table


def parity_text(artifact: ArtifactReport) -> str:
    """The largest difference and, where it is too large, that it fails."""
    parity = artifact.parity
    if parity is None:
        return MISSING
    if parity.max_lsb is not None:
        text = f"{parity.max_lsb:.3g} LSB"
    elif parity.max_relative is not None:
        text = f"{parity.max_relative:.0e}"
    else:
        text = "not finite"
    return text if parity.verdict == "pass" else f"{text} FAIL"


def _budgets(report: Report) -> "Table":
    from rich.text import Text

    table = _table("budgets", "artifact", "budget", "found", "verdict")
    for target, artifact in _pairs(report):
        for judgement in artifact.budgets:
            table.add_row(
                Text(f"{target.name}: {Path(artifact.path).name}"),
                Text(limit_text(judgement)),
                Text(found_text(judgement)),
                Text(judgement.verdict, STYLES[judgement.verdict]),
            )
    return table


def limit_text(judgement: Judgement) -> str:
    """latency_ms_p90 ≤ 5 ms"""
    limit = metric_text(judgement.metric, judgement.limit)
    return f"{judgement.metric} {budget_relation(judgement)} {limit}"


def found_text(judgement: Judgement) -> str:
    """The value, with its kind unless that is measured."""
    text = metric_text(judgement.metric, judgement.value)
    if judgement.value is None or judgement.kind == "measured":
        return text
    return f"{text} ({judgement.kind})"


def _pairs(report: Report) -> list[tuple[TargetReport, ArtifactReport]]:
    return [(target, artifact) for target in report.targets for artifact in target.artifacts]


def _remarks(report: Report) -> Iterable[str]:
    """Why numbers are missing, why budgets do not hold, and every note, each once."""
    lines = [f"teacher: no {name}: {why}" for name, why in report.teacher.reasons.items()]
    for stage in report.stages:
        lines += [f"{stage.kind}: no {name}: {why}" for name, why in stage.reasons.items()]
        lines += [f"{stage.kind}: {note}" for note in stage.notes]
    for target in report.targets:
        lines += [f"{target.name}: no {name}: {why}" for name, why in target.reasons.items()]
        lines += [f"{target.name}: {note}" for note in target.notes]
    for target, artifact in _pairs(report):
        lines += [f"{target.name}: {line}" for line in artifact_remarks(artifact)]
    return dict.fromkeys([*lines, *report.notes])


def artifact_remarks(artifact: ArtifactReport) -> list[str]:
    """What the user should know about one artifact, a line each."""
    name = Path(artifact.path).name
    lines = [f"{name}: {one.metric}: {one.reason}" for one in artifact.budgets if one.reason]
    lines += [f"{name}: no {what}: {why}" for what, why in artifact.reasons.items()]
    lines += [
        f"{name}: no {one.metric}: {one.reason}"
        for one in artifact.measurements
        if one.value is None
    ]
    if artifact.parity is not None and artifact.parity.verdict == "fail":
        where = artifact.parity.first_difference or "no layer was looked for"
        lines.append(f"{name}: parity fails: {where}")
    return lines + [f"{name}: {note}" for note in artifact.notes]
