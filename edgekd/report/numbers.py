"""A report's numbers formatted for reading, and the ratios computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.measure.budgets import run_verdict
from edgekd.report.values import ArtifactReport, LayerCost, Report, TargetReport
from edgekd.values.measurement import Judgement, Measurement, Verdict

MISSING, MINUS, TIMES = "\u2013", "\u2212", "\u00d7"
SHORT: Mapping[str, str] = {
    "simulated": "sim", "estimated": "est", "measured": "measured", "unavailable": MISSING,
}  # fmt: skip
UNITS: Mapping[str, str] = {
    "us": "µs", "ms": "ms", "s": "s", "uj": "µJ", "mj": "mJ", "j": "J", "w": "W", "kb": "kB",
    "kib": "KiB", "mb": "MB", "mib": "MiB", "gb": "GB", "gib": "GiB", "celsius": "°C",
}  # fmt: skip


def count_text(value: float | None) -> str:
    """Up to four digits as they are, larger numbers as 78.7 k, 1.05 M, 2.3 G."""
    if value is None:
        return MISSING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g} {letter}"
    return f"{value:,.0f}"


def bytes_text(value: float | None) -> str:
    """Decimal units: 512 B, 78.4 kB, 1.2 MB."""
    if value is None:
        return MISSING
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def percent(share: float | None, digits: int = 2) -> str:
    """A share from 0 to 1 as a percentage."""
    return MISSING if share is None else f"{100 * share:.{digits}f} %"


def points(drop: float | None) -> str:
    """A drop in percentage points, shown as a change: a drop of 0.4 is -0.40 pt."""
    if drop is None:
        return MISSING
    change = round(-drop, 2)
    return f"{change:+.2f} pt".replace("-", MINUS) if change else "0.00 pt"


def times(ratio: float | None) -> str:
    """12.4×, or 0.83×, with as many digits as are useful."""
    if ratio is None:
        return MISSING
    return f"{ratio:.0f}{TIMES}" if ratio >= 100 else f"{ratio:.3g}{TIMES}"


def metric_text(metric: str, value: float | None) -> str:
    """A value with the unit that its metric's name ends in."""
    if value is None:
        return MISSING
    if metric.startswith("accuracy_drop"):
        return f"{value:.2f} pt"
    if metric.startswith(("accuracy", "agreement")):
        return percent(value)
    parts = metric.split("_")
    if "bytes" in parts:
        return bytes_text(value)
    unit = next((UNITS[part] for part in reversed(parts) if part in UNITS), "")
    return f"{value:.3g} {unit}".strip() if abs(value) < 1000 else f"{value:,.0f} {unit}".strip()


def measured_text(measurement: Measurement | None) -> str:
    """The value, marked with its kind unless it was measured."""
    if measurement is None or measurement.value is None:
        return MISSING
    text = metric_text(measurement.metric, measurement.value)
    return text if measurement.kind == "measured" else f"{text} ({SHORT[measurement.kind]})"


@dataclass(frozen=True)
class Gains:
    """An artifact compared with its target's baseline; a ratio is None if one side is missing."""

    smaller: float | None
    faster: float | None
    p50: Measurement | None
    p90: Measurement | None


def gains(report: Report, target: TargetReport, artifact: ArtifactReport) -> Gains:
    """How many times smaller and faster an artifact is than the uncompressed model.

    Speed is compared with the baseline measured alongside; size with the baseline's file, or with
    the teacher's bytes if there is no such file.
    """
    baseline = target.baseline
    before = baseline.bytes if baseline is not None else report.teacher.bytes
    ratio = artifact.measurement("latency_ratio")
    return Gains(
        smaller=before / artifact.bytes if before and artifact.bytes else None,
        faster=ratio.value if ratio is not None else None,
        p50=artifact.measurement("latency_ms_p50"),
        p90=artifact.measurement("latency_ms_p90"),
    )


def verdict_of(artifacts: Sequence[ArtifactReport]) -> Verdict:
    """The joint verdict of the artifacts' budgets and parity checks."""
    judgements = [judgement for artifact in artifacts for judgement in artifact.budgets]
    parities = [artifact.parity for artifact in artifacts if artifact.parity is not None]
    return run_verdict(judgements, parities)


RANKS: Mapping[Verdict, int] = {"pass": 0, "unverified": 1, "fail": 2}


def lead(report: Report, target: TargetReport) -> ArtifactReport | None:
    """The recommended artifact, shown first: the fastest that holds every budget, else the fastest
    that breaks none, or the most accurate if all fail; ties go to the smallest. Of those that the
    verdict is about, if the report says which."""
    shown = [each for each in target.artifacts if each.delivered] or target.artifacts

    def rank(artifact: ArtifactReport) -> tuple[int, float, float]:
        verdict = verdict_of([artifact])
        if verdict == "fail":
            return RANKS[verdict], -(artifact.accuracy or 0.0), float(artifact.bytes)
        gain = gains(report, target, artifact)
        return RANKS[verdict], -(gain.faster or 0.0), float(artifact.bytes)

    return min(shown, key=rank, default=None)


def budget_relation(judgement: Judgement) -> str:
    """≤ for an upper limit, ≥ for accuracy."""
    return "≥" if judgement.metric == "accuracy" else "≤"


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after compression: parameters and MACs, None if it was removed or is
    new."""

    name: str
    kind: str
    parameters_before: int | None
    parameters_after: int | None
    macs_before: int | None
    macs_after: int | None


def layer_changes(before: Sequence[LayerCost], after: Sequence[LayerCost]) -> list[LayerChange]:
    """Each layer of both models in order. A layer that was split (`conv` into `conv.0` and
    `conv.1`) is one entry with the sum of its parts."""
    names = [layer.name for layer in before]
    parts: dict[str, list[LayerCost]] = {name: [] for name in names}
    new: list[LayerChange] = []
    for layer in after:
        owners = [n for n in names if layer.name == n or layer.name.startswith(f"{n}.")]
        if owners:
            parts[max(owners, key=len)].append(layer)
        else:
            new.append(
                LayerChange(layer.name, layer.kind, None, layer.parameters, None, layer.macs)
            )
    changes = [
        LayerChange(
            layer.name,
            layer.kind if len(parts[layer.name]) < 2 else f"{layer.kind}, split",
            layer.parameters,
            sum(part.parameters for part in parts[layer.name]) if parts[layer.name] else None,
            layer.macs,
            sum(part.macs for part in parts[layer.name]) if parts[layer.name] else None,
        )
        for layer in before
    ]
    return changes + new
