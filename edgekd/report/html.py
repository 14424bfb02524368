"""report.html: one self-contained page that follows the reader's light or dark mode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.measure.parity import Parity
from edgekd.package import package_folder
from edgekd.report import numbers, plots
from edgekd.report.bars import time_bars
from edgekd.report.delivery import delivered
from edgekd.report.diagnosis import diagnosis_picture
from edgekd.report.findings import shown
from edgekd.report.terminal import (
    artifact_remarks,
    found_text,
    limit_text,
    parity_text,
    remarks,
)
from edgekd.report.values import ArtifactReport, Report, TargetReport
from edgekd.values.backend_lookup import plot_mark

TEMPLATE, COMPARISON = "report.html.jinja", "comparison.html.jinja"
SHOWN_LAYERS = 40


@dataclass(frozen=True)
class Figure:
    """One plot with its caption, and the names of what could not be shown in it or, in a list of
    plots that fold, of what it shows."""

    svg: str
    caption: str
    missing: str = ""


def html(report: Report) -> str:
    """The whole page. The same report gives the same text; all content is escaped."""
    artifacts = [(target, one) for target in report.targets for one in target.artifacts]
    changes = numbers.layer_changes(report.layers.before, report.layers.after)
    changes = [change for change in changes if change.macs_before or change.macs_after]
    most = max((c.macs_before or c.macs_after or 0 for c in changes), default=0)
    return rendered(
        TEMPLATE,
        report=report,
        artifacts=artifacts,
        cards=[_card(report, target) for target in report.targets],
        trade_offs=[_trade_off(report, "latency"), _trade_off(report, "size")],
        latencies=list(_latencies(report)),
        parities=list(_parities(report)),
        layers=changes[:SHOWN_LAYERS],
        more_layers=len(changes) - SHOWN_LAYERS,
        most_macs=most,
        remarks=remarks(report),
        findings=list(shown(report)),
        times=list(_times(report)),
        diagnoses=[
            Figure(diagnosis_picture(each.diagnosis, page=True), each.title or each.name)
            for each in report.targets
            if each.diagnosis is not None
        ],
    )


def compare_html(reports: Sequence[tuple[str, Report]]) -> str:
    """One page that compares several named runs: Pareto plots and a table."""
    rows = [
        (index, name, report, target, artifact)
        for index, (name, report) in enumerate(reports, 1)
        for target in report.targets
        for artifact in target.artifacts
    ]
    figures = [
        _compared(rows, metric, label, names=dict(enumerate((name for name, _ in reports), 1)))
        for metric, label in (("latency", "p50 latency (ms)"), ("size", "file size (kB)"))
    ]
    best = _pareto(rows)
    return rendered(COMPARISON, reports=reports, rows=rows, figures=figures, best=best)


def rendered(template: str, **values: Any) -> str:
    """A template of this folder, or of the room that presents something else in the same style."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([package_folder() / "report", package_folder() / "searching"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        numbers=numbers,
        gains=numbers.gains,
        file_name=lambda artifact: Path(artifact.path).name,
        limit_text=limit_text,
        found_text=found_text,
        parity_text=parity_text,
        artifact_remarks=artifact_remarks,
        drawing=Markup,
    )
    return environment.get_template(template).render(**values)


@dataclass(frozen=True)
class Card:
    """A target's headline: its leading artifact and how far it is from the teacher."""

    target: TargetReport
    artifact: ArtifactReport | None
    verdict: str
    smaller: str
    faster: str
    speed_note: str
    change: str
    interval: str


def _card(report: Report, target: TargetReport) -> Card:
    artifact = numbers.lead(report, target)
    verdict = numbers.verdict_of(delivered(target))
    if artifact is None:
        return Card(target, None, verdict, "", "", "", "", "")
    gain = numbers.gains(report, target, artifact)
    note = ""
    if gain.p50 is not None:
        note = f"{numbers.measured_text(gain.p50)} p50"
    elif gain.faster is None:
        note = _why_no_latency(artifact)
    interval = ""
    if artifact.accuracy_drop_ci is not None:
        low, high = artifact.accuracy_drop_ci
        ends = [numbers.points(end).removesuffix(" pt") for end in (high, low)]
        interval = f"95 % interval {ends[0]} to {ends[1]}"
    return Card(
        target,
        artifact,
        verdict,
        numbers.times(gain.smaller),
        numbers.times(gain.faster),
        note,
        numbers.points(artifact.accuracy_drop),
        interval or artifact.reasons.get("accuracy", ""),
    )


def _why_no_latency(artifact: ArtifactReport) -> str:
    reasons = [one.reason for one in artifact.measurements if one.metric.startswith("latency")]
    return next((reason for reason in reasons if reason), "no latency was measured")


def _cost(artifact: ArtifactReport, metric: str) -> float | None:
    if metric == "size":
        return artifact.bytes / 1e3
    latency = artifact.measurement("latency_ms_p50")
    return latency.value if latency is not None else None


def _trade_off(report: Report, metric: str) -> Figure | None:
    """Accuracy against latency or size of the teacher, stages and artifacts for which both are
    known."""
    points: list[plots.Point] = []
    missing: list[str] = []
    legend: dict[str, int] = {}
    for number, target in enumerate(report.targets, 1):
        entries = [(0, "teacher", target.baseline)] if target.baseline is not None else []
        entries += [(number, _label(one), one) for one in target.artifacts]
        for series, label, artifact in entries:
            cost = _cost(artifact, metric) if artifact is not None else None
            if artifact is None or artifact.accuracy is None or not cost:
                missing.append(f"{target.name} {label}")
                continue
            if metric == "size" and series == 0 and "teacher" in legend:
                continue
            legend.setdefault(target.name if series else "teacher", series)
            marker = plot_mark(artifact.format)
            label = label if series else target.name * (metric == "latency")
            points.append(
                plots.Point(cost, artifact.accuracy, label, series, marker, artifact.accuracy_ci)
            )
    staged, unplaced = _stage_points(report, metric)
    if staged:
        legend["stages"] = -1
    if not points + staged:
        return None
    axis = "file size (kB)" if metric == "size" else "p50 latency of one inference (ms)"
    title = f"Accuracy against {metric} of the teacher, {'stages and ' * bool(staged)}artifacts"
    return Figure(
        plots.scatter([*points, *staged], legend, axis, f"scatter-{metric}", title),
        f"Accuracy against {metric}. Up and to the left is better; bars are 95 % intervals.",
        "; ".join([*missing, *unplaced]),
    )


def _stage_points(report: Report, metric: str) -> tuple[list[plots.Point], list[str]]:
    points, missing = [], []
    for stage in report.stages:
        cost = stage.bytes / 1e3 if stage.bytes else None
        if metric == "latency":
            latency = stage.measurement("latency_ms_p50")
            cost = latency.value if latency is not None else None
        if cost and stage.accuracy is not None:
            points.append(plots.Point(cost, stage.accuracy, stage.kind, -1, "D", stage.accuracy_ci))
        else:
            missing.append(f"stage {stage.kind}")
    return points, missing


def _label(artifact: ArtifactReport) -> str:
    return f"{artifact.label} {artifact.format}"


def _latencies(report: Report) -> Iterator[Figure]:
    """One figure for each target that has latency samples."""
    for number, target in enumerate(report.targets, 1):
        entries = [("teacher", target.baseline)] if target.baseline is not None else []
        entries += [(Path(one.path).name, one) for one in target.artifacts]
        curves = []
        for index, (label, artifact) in enumerate(entries, 0 if target.baseline else 1):
            samples = _samples(artifact) if artifact is not None else ()
            if samples:
                curves.append(plots.Curve(label, samples, index))
        if curves:
            title = f"Distribution of latency on {target.name}"
            svg = plots.latency_curves(curves, f"latency-{number}", title)
            kinds = sorted({one.kind for one in _latency_values(target)})
            yield Figure(svg, f"{target.title or target.name} ({', '.join(kinds)}).")


def _times(report: Report) -> Iterator[Figure]:
    """Where the time of each file goes, by operator."""
    for target in report.targets:
        for artifact in target.artifacts:
            times = artifact.layer_times
            if times is not None and times.rows:
                name = f"{target.name}: {Path(artifact.path).name}"
                yield Figure(time_bars(name, times, page=True), " ".join(times.notes), name)


def _samples(artifact: ArtifactReport) -> tuple[float, ...]:
    for one in artifact.measurements:
        if one.metric.startswith("latency_ms") and one.samples:
            return one.samples
    return ()


def _latency_values(target: TargetReport) -> list[Any]:
    return [
        one
        for artifact in target.artifacts
        for one in artifact.measurements
        if one.metric.startswith("latency_ms") and one.samples
    ]


def _parities(report: Report) -> Iterator[tuple[str, Parity, Figure]]:
    number = 0
    for target in report.targets:
        for artifact in target.artifacts:
            if artifact.parity is None:
                continue
            file = f"{target.name}: {Path(artifact.path).name}"
            several = {f"{file}, output {name}": p for name, p in artifact.parity.outputs.items()}
            for name, parity in (several or {file: artifact.parity}).items():
                number += 1
                svg = plots.parity_histogram(
                    parity.histogram,
                    parity.tolerance,
                    f"parity-{number}",
                    f"Differences between {name} and its reference",
                )
                yield name, parity, Figure(svg, name)


Row = tuple[int, str, Report, TargetReport, ArtifactReport]


def _compared(rows: Sequence[Row], metric: str, axis: str, names: dict[int, str]) -> Figure | None:
    points, missing = [], []
    for index, name, _, target, artifact in rows:
        cost = _cost(artifact, metric)
        if cost and artifact.accuracy is not None:
            marker = plot_mark(artifact.format)
            label = f"{target.name} {_label(artifact)}"
            points.append(
                plots.Point(cost, artifact.accuracy, label, index, marker, artifact.accuracy_ci)
            )
        else:
            missing.append(f"{name}: {target.name} {_label(artifact)}")
    if not points:
        return None
    places: dict[str, list[tuple[float, float]]] = {}
    for _, _, _, target, artifact in rows:
        cost = _cost(artifact, metric)
        if cost and artifact.accuracy is not None and _merits(artifact) is not None:
            places.setdefault(target.name, []).append((cost, artifact.accuracy))
    svg = plots.scatter(
        points,
        {name: index for index, name in names.items()},
        axis,
        f"runs-{metric}",
        f"Runs: accuracy against {metric}",
        fronts=[front_line(place) for place in places.values()],
    )
    caption = (
        f"Accuracy against {metric}. Up and to the left is better; the lines are the Pareto "
        "fronts of each target."
    )
    return Figure(svg, caption, "; ".join(missing))


def front_line(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, accuracy) points that no other point beats in both, in order of cost."""
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda one: (one[0], -one[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _pareto(rows: Sequence[Row]) -> dict[int, bool]:
    """For each row, whether no other row of the same target beats it in accuracy, p50 and size at
    once. Rows that lack one of these, or fail their parity check, are left out."""
    merits = {index: _merits(artifact) for index, (*_, artifact) in enumerate(rows)}
    known = {index: merit for index, merit in merits.items() if merit is not None}
    return {
        index: not any(
            rows[other][3].name == rows[index][3].name and _dominates(rival, merit)
            for other, rival in known.items()
        )
        for index, merit in known.items()
    }


def _merits(artifact: ArtifactReport) -> tuple[float, ...] | None:
    """The quantities to minimize: negative accuracy, p50 and bytes."""
    latency = _cost(artifact, "latency")
    broken = artifact.parity is not None and artifact.parity.verdict == "fail"
    if latency is None or artifact.accuracy is None or broken:
        return None
    return -artifact.accuracy, latency, float(artifact.bytes)


def _dominates(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Whether `a` is at least as good in everything and better in something."""
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))
