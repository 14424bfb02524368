"""The report as tables in the terminal: coloured on a terminal, plain text in a file or pipe."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgekd.measure.parity import Parity
from edgekd.report.numbers import (
    MISSING,
    SHORT,
    budget_relation,
    bytes_text,
    count_text,
    gains,
    measured_text,
    metric_text,
    percent,
    times,
)
from edgekd.report.overruns import failure_text
from edgekd.report.values import (
    ArtifactReport,
    Report,
    StageReport,
    TargetReport,
    TeacherReport,
)
from edgekd.values.measurement import Judgement

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 120
COLUMNS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (110, ("accuracy", "agrees", "bytes", "p50", "p90", "smaller", "faster", "parity")),
    (88, ("accuracy", "bytes", "p50", "p90", "faster", "parity")),
    (0, ("accuracy", "bytes", "p50", "faster")),
)
MODEL_COLUMNS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (96, ("accuracy", "95 % interval", "parameters", "MACs", "bytes", "time")),
    (0, ("accuracy", "parameters", "bytes", "time")),
)
"""The columns that fit into a given width in characters, the widest first."""
STYLES = {"pass": "green", "fail": "bold red", "unverified": "yellow"}


def print_report(
    report: Report, folder: Path, stream: IO[str] | None = None, width: int | None = None
) -> None:
    """Print the whole report; the last lines are the verdict and the path of report.html."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream or sys.stdout, width=width, highlight=False, emoji=False)
    if width is None and not console.is_terminal:
        console.width = PIPE_WIDTH
    targets = (_artifacts(report, target, console.width) for target in report.targets)
    for table in (_models(report, console.width), *targets):
        console.print(table)
    if any(artifact.budgets for _, artifact in _pairs(report)):
        console.print(_budgets(report))
    for about, text in remarks(report):
        console.print(Text(f"- {about}: {text}" if about else f"- {text}"))
    console.print(Text.assemble("verdict: ", (report.verdict, STYLES[report.verdict])))
    _say_path(console, folder / "report.html")


def _say_path(console: "Console", path: Path) -> None:
    """Print the path on one line, however long, so that it can be copied."""
    from rich.text import Text

    console.print(Text(f"report:  {path}"), soft_wrap=True)


def _table(title: str, *columns: str) -> "Table":
    """A table whose first column is text and whose other columns are numbers."""
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

    # Text, not markup: a model's name may look like markup, such as [red].
    table.add_row(*(Text(cell) for cell in cells), style=style)


def _models(report: Report, width: int) -> "Table":
    data, teacher = report.data, report.teacher
    title = f"{report.name or 'model'} on {data.name}, {data.test:,} test samples"
    columns = next(columns for least, columns in MODEL_COLUMNS if width >= least)
    table = _table(title, "model", *columns)
    rows = [(f"teacher {teacher.name}".strip(), _model_cells(teacher, ""))]
    for stage in report.stages:
        time = "cached" if stage.cached else f"{stage.seconds:,.0f} s"
        rows.append((stage.kind, _model_cells(stage, time)))
    for name, cells in rows:
        _row(table, name, *(cells[column] for column in columns))
    return table


def _model_cells(model: TeacherReport | StageReport, time: str) -> dict[str, str]:
    return {
        "accuracy": percent(model.accuracy),
        "95 % interval": interval_text(model.accuracy_ci),
        "parameters": count_text(model.parameters),
        "MACs": count_text(model.macs),
        "bytes": bytes_text(model.bytes),
        "time": time,
    }


def interval_text(ci: tuple[float, float] | None) -> str:
    """95.1 to 97.3"""
    return MISSING if ci is None else f"{100 * ci[0]:.1f} to {100 * ci[1]:.1f}"


def _artifacts(report: Report, target: TargetReport, width: int) -> "Table":
    title = f"{target.title or target.name}"
    if target.device:
        title += f", on {target.device}"
    columns = next(columns for least, columns in COLUMNS if width >= least)
    table = _table(title, "artifact", *columns)
    rows = [("teacher", target.baseline)] if target.baseline is not None else []
    rows += [(Path(artifact.path).name, artifact) for artifact in target.artifacts]
    for name, artifact in rows:
        assert artifact is not None
        cells = _cells(report, target, artifact)
        style = "dim" if artifact is target.baseline else ""
        name += " (!)" if artifact.warnings else ""
        name += " (delivered)" if _is_marked(target, artifact) else ""
        _row(table, name, *(cells[column] for column in columns), style=style)
    return table


def _is_marked(target: TargetReport, artifact: ArtifactReport) -> bool:
    """Whether a file is marked as delivered: where precisions were compared, it is one of many."""
    return bool(target.choices) and artifact.delivered and artifact is not target.baseline


def _cells(report: Report, target: TargetReport, artifact: ArtifactReport) -> dict[str, str]:
    gain = gains(report, target, artifact)
    return {
        "accuracy": percent(artifact.accuracy),
        "agrees": percent(artifact.agreement_with_teacher, 1),
        "bytes": bytes_text(artifact.bytes),
        "p50": measured_text(gain.p50),
        "p90": measured_text(gain.p90),
        "smaller": times(gain.smaller),
        "faster": times(gain.faster),
        "parity": parity_text(artifact),
    }


def parity_text(artifact: ArtifactReport) -> str:
    """The largest difference, and FAIL if it exceeds the tolerance."""
    parity = artifact.parity
    return MISSING if parity is None else _difference_text(parity)


def _difference_text(parity: Parity) -> str:
    if parity.max_lsb is not None:
        text = f"{parity.max_lsb:.3g} LSB"
    elif parity.max_relative is not None:
        text = f"{parity.max_relative:.0e} rel"
    else:
        text = "not finite"
    return text if parity.verdict == "pass" else f"{text} FAIL"


def _budgets(report: Report) -> "Table":
    from rich.text import Text

    table = _table("budgets", "artifact", "budget", "found", "verdict")
    for target, artifact in _pairs(report):
        beside = "" if artifact.delivered else " (not delivered)"
        for judgement in artifact.budgets:
            table.add_row(
                Text(f"{target.name}: {Path(artifact.path).name}{beside}"),
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
    """The value, with its kind unless it was measured."""
    text = metric_text(judgement.metric, judgement.value)
    if judgement.value is None or judgement.kind == "measured":
        return text
    return f"{text} ({SHORT[judgement.kind]})"


def _pairs(report: Report) -> list[tuple[TargetReport, ArtifactReport]]:
    return [(target, artifact) for target in report.targets for artifact in target.artifacts]


def remarks(report: Report) -> list[tuple[str, str]]:
    """Every remark once, with its subjects; empty for the whole run."""
    subjects: dict[str, dict[str, None]] = {}
    for subject, text in _remarks(report):
        subjects.setdefault(text, {})[subject] = None
    return [(", ".join(filter(None, about)), text) for text, about in subjects.items()]


def _remarks(report: Report) -> list[tuple[str, str]]:
    """Reasons for missing numbers and unmet budgets, and every note, as (subject, remark)."""
    remarks = [("teacher", text) for text in _gaps(report.teacher.reasons)]
    for stage in report.stages:
        remarks += [(stage.kind, text) for text in (*_gaps(stage.reasons), *stage.notes)]
    for target in report.targets:
        remarks += [(target.name, text) for text in (*_gaps(target.reasons), *target.notes)]
        remarks += [(target.name, failure_text(failure)) for failure in target.failures]
        remarks += [(f"{target.name} {choice.format}", choice.reason) for choice in target.choices]
        if target.baseline is not None:
            subject = f"{target.name} {Path(target.baseline.path).name}"
            remarks += [(subject, text) for text in parity_remarks(target.baseline)]
        for artifact in target.artifacts:
            subject = f"{target.name} {Path(artifact.path).name}"
            remarks += [(subject, text) for text in artifact_remarks(artifact)]
    return [*remarks, *(("", note) for note in report.notes)]


def artifact_remarks(artifact: ArtifactReport) -> list[str]:
    """What the user should know about one artifact, one line each."""
    lines = [
        f"{one.metric}: {one.reason}"
        for one in artifact.budgets
        if one.value is not None and one.reason
    ]
    missing = {one.metric: one.reason for one in artifact.budgets if one.value is None}
    missing |= {one.metric: one.reason for one in artifact.measurements if one.value is None}
    lines += _gaps({**artifact.reasons, **missing})
    shapes = [*tensor_lines(artifact), *size_lines(artifact)]
    warnings = [f"warning: {warning}" for warning in artifact.warnings]
    return [*warnings, *lines, *shapes, *parity_remarks(artifact), *artifact.notes]


def tensor_lines(artifact: ArtifactReport) -> list[str]:
    """The inputs and outputs of a file that has several, and how far each output differs."""
    if max(len(artifact.inputs), len(artifact.outputs)) < 2:
        return []
    lines = [
        f"{kind}: {', '.join(map(str, infos))}"
        for kind, infos in (("inputs", artifact.inputs), ("outputs", artifact.outputs))
        if infos
    ]
    outputs = artifact.parity.outputs if artifact.parity else {}
    each = [f"{name} {_difference_text(parity)}" for name, parity in outputs.items()]
    return [*lines, f"parity: {', '.join(each)}"] if each else lines


def size_lines(artifact: ArtifactReport) -> list[str]:
    """How far a file differs at other sizes that it leaves open."""
    sizes = artifact.parity.sizes if artifact.parity else {}
    each = [f"{name} {_difference_text(parity)}" for name, parity in sizes.items()]
    return [f"parity at other sizes: {', '.join(each)}"] if each else []


def parity_remarks(artifact: ArtifactReport) -> list[str]:
    """Why parity fails, or why it passes beyond its tolerance."""
    parity = artifact.parity
    if parity is None:
        return []
    if parity.verdict == "fail":
        return [f"parity fails: {parity.first_difference or parity.reason}"]
    if parity.max_lsb is not None and parity.max_lsb > parity.tolerance:
        return [
            f"{parity.max_lsb:g} LSB, {parity.tolerance:g} allowed; rounding explains the "
            f"difference: {parity.first_difference}"
        ]
    return []


def _gaps(reasons: Mapping[str, str]) -> list[str]:
    """Missing values that share a reason on one line."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"no {', '.join(missing)}: {reason}" for reason, missing in names.items()]
