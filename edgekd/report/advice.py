"""What to try where a budget is broken, by what broke it."""

from collections.abc import Sequence

from edgekd.measure.parity import Parity
from edgekd.report.values import ArtifactReport, Report, StageReport

# By prefix of the budget's name; the first match counts.
_ADVICE = (
    ("size", "try a smaller student, or a larger 'amount' in a prune stage"),
    (
        "memory",
        "try a smaller input, or fewer channels in the first layers: a narrower student, prune",
    ),
    (
        "latency",
        "try a smaller student, a larger 'amount' in a prune stage, or a faster target",
    ),
    (
        "energy",
        "try a smaller student, a larger 'amount' in a prune stage, or a faster target",
    ),
)

_AFTER_STAGE = {
    "distill": "try more epochs, or a larger student",
    "prune": "try more epochs in the prune stage, or a smaller 'amount'",
    "factorize": "try more epochs in the factorize stage, or higher ranks",
    "quantize": "try method = 'qat' in the quantize stage, or 'mixed', which keeps the most "
    "sensitive layers in float or 16 bits: edgekd diagnose names them",
    "cluster": "try more 'bits' in the cluster stage",
    "shrink": "try more 'weights_kb' or more epochs in the shrink stage",
}

_ANY_STAGE = "try more epochs, method = 'qat' in the quantize stage, or less pruning"

_NOTICED = 0.001
"""A smaller loss of accuracy than 0.1 points is nobody's fault."""


def advice_for(report: Report, artifact: ArtifactReport, metric: str) -> str:
    """What to try so that the file keeps to a budget of that metric."""
    if not metric.startswith("accuracy"):
        return next((words for start, words in _ADVICE if metric.startswith(start)), "")
    if artifact.parity is not None and artifact.parity.verdict == "fail":
        return f"its parity fails first: {fault_of(artifact.parity)}"
    kind, lost = _most_lost(report, artifact)
    if lost <= _NOTICED:
        return _ANY_STAGE
    if not kind:
        return (
            f"{100 * lost:.1f} points are lost between the last stage and the file: "
            "a fault of its conversion, which no training mends"
        )
    words = _AFTER_STAGE.get(kind, _ANY_STAGE)
    return f"{100 * lost:.1f} points are lost in the {kind} stage: {words}"


def warnings_for(
    artifact: ArtifactReport, stages: Sequence[StageReport], teacher_bytes: int | None
) -> tuple[str, ...]:
    """Where compressing a file has not paid: it is not smaller than the float weights that it was
    quantized from, or slower than the teacher's own file."""
    found = []
    floats = _float_bytes(artifact, stages, teacher_bytes)
    narrow = artifact.precision not in ("fp32", "fp16")
    if narrow and floats and artifact.bytes >= floats:
        found.append(
            f"labelled {artifact.precision}, but its {artifact.bytes:,} bytes are not fewer than "
            f"the {floats:,} of the float weights: most of it stays in float, or its format costs "
            "more than it saves"
        )
    ratio = artifact.measurement("latency_ratio")
    if ratio is not None and ratio.value is not None and (ratio.ci or (0.0, ratio.value))[1] < 1:
        found.append(
            f"slower than the teacher's own file: {ratio.value:.3g} times its speed; "
            "'Where the time goes' in report.html shows the operators that take it"
        )
    return tuple(found)


def _float_bytes(
    artifact: ArtifactReport, stages: Sequence[StageReport], teacher_bytes: int | None
) -> int | None:
    """The bytes of the last float candidate before the file was quantized."""
    size = teacher_bytes
    for stage in stages:
        if stage.kind in ("quantize", "cluster", "shrink"):
            break
        if stage.line in artifact.lineage and stage.bytes is not None:
            size = stage.bytes
    return size


def fault_of(parity: Parity) -> str:
    """What a failed parity check means, and where it is wrong."""
    place = parity.first_difference or parity.reason
    said = "what runs is not the network that was trained, so no training mends it"
    return f"{said}: {place}" if place else said


def _most_lost(report: Report, artifact: ArtifactReport) -> tuple[str, float]:
    """The kind of the stage that lost most accuracy on the way to a file, '' for the compiler, and
    how much (0 to 1)."""
    losses: list[tuple[str, float]] = []
    before = report.teacher.accuracy
    for stage in report.stages:
        if stage.line in artifact.lineage and stage.accuracy is not None:
            if before is not None:
                losses.append((stage.kind, before - stage.accuracy))
            before = stage.accuracy
    if before is not None and artifact.accuracy is not None:
        losses.append(("", before - artifact.accuracy))
    return max(losses, key=lambda loss: loss[1], default=("", 0.0))
