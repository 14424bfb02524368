"""A broken budget in one line: by how much, and what to try. What a build log ends with."""

from edgekd.measure.budgets import in_words
from edgekd.measure.parity import Parity
from edgekd.report.values import ArtifactReport, Report
from edgekd.values.measurement import Judgement

# By what a budget's name begins with; the first that fits.
ADVICE = (
    ("accuracy", "more epochs, method = 'qat' in the quantize stage, or less pruning"),
    ("size", "a smaller student, or a larger 'amount' in a prune stage"),
    ("memory", "a smaller input, or fewer channels in the first layers: a narrower student, prune"),
    ("latency", "a smaller student, a larger 'amount' in a prune stage, or a faster target"),
    ("energy", "a smaller student, a larger 'amount' in a prune stage, or a faster target"),
)


def overrun_lines(report: Report) -> list[str]:
    """A line for each budget that is broken, of the target's files the one that breaks it most, and
    for each failed parity check. Only where nothing is broken, for what is not verified."""
    worst: dict[tuple[str, str, str], tuple[float, str]] = {}
    strays = []
    for target in report.targets:
        for artifact in target.artifacts:
            where = f"{target.name}: {artifact.path.rpartition('/')[2]}"
            for one in artifact.budgets:
                key = (one.verdict, target.name, one.metric)
                beyond = abs((one.value or 0.0) - one.limit)
                if one.verdict != "pass" and (key not in worst or beyond > worst[key][0]):
                    worst[key] = (beyond, _line(where, one))
            if artifact.parity and artifact.parity.verdict == "fail":
                strays.append(f"{where}: its outputs stray: {_strayed(artifact.parity)}")
    broken = [line for (verdict, _, _), (_, line) in worst.items() if verdict == "fail"]
    return [*broken, *strays] or [line for _, line in worst.values()]


def _strayed(parity: Parity) -> str:
    """How far, and how far was allowed."""
    if parity.max_lsb is None:
        return parity.reason or f"{parity.max_relative} relative, {parity.tolerance:g} allowed"
    return f"{parity.max_lsb:g} LSB away from {parity.reference}, {parity.tolerance:g} allowed"


def _line(where: str, one: Judgement) -> str:
    if one.verdict == "unverified":
        return f"{where}: {in_words(one.metric, one.limit)} is not verified: {one.reason}"
    tried = next((words for start, words in ADVICE if one.metric.startswith(start)), "")
    assert one.value is not None
    beyond = abs(one.value - one.limit)
    side = "below" if one.value < one.limit else "over"
    told = f"is {beyond:.4g} {side} its limit of {one.limit:g}"
    if one.reason.startswith("the interval"):
        told = f"misses its limit of {one.limit:g}: {one.reason}"
    return f"{where}: {one.metric} = {one.value:.4g} {told}; try {tried}"


def best_micro_file(artifacts: tuple[ArtifactReport, ...], wanted: str) -> ArtifactReport | None:
    """The file that sources are made of: the int8 one in the first of the formats that there is.

    Plain C is made of TFLite; the micro runtime also takes what Vela made of it.
    """
    formats = ("tflite",) if wanted == "c" else ("vela", "tflite")
    for name in formats:
        for artifact in artifacts:
            if artifact.format == name and artifact.precision == "int8":
                return artifact
    return None
