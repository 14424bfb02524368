"""Each broken budget on one line: by how much, and what to try. A build log ends with these."""

from edgekd.errors import ToolError
from edgekd.measure.budgets import EXIT_CODES, format_budget
from edgekd.measure.parity import Parity
from edgekd.report.values import ArtifactReport, BackendFailure, Report
from edgekd.values.measurement import Judgement

# By prefix of the budget's name; the first match counts.
ADVICE = (
    ("accuracy", "more epochs, method = 'qat' in the quantize stage, or less pruning"),
    ("size", "a smaller student, or a larger 'amount' in a prune stage"),
    ("memory", "a smaller input, or fewer channels in the first layers: a narrower student, prune"),
    ("latency", "a smaller student, a larger 'amount' in a prune stage, or a faster target"),
    ("energy", "a smaller student, a larger 'amount' in a prune stage, or a faster target"),
)


def exit_code(report: Report) -> int:
    """What a command ends with: 3 if a backend failed, else what the budgets say."""
    failed = any(target.failures for target in report.targets)
    return ToolError.exit_code if failed else EXIT_CODES[report.verdict]


def failure_lines(report: Report) -> list[str]:
    """A line for each backend that made no file."""
    return [
        f"{target.name}: {failure_text(failure)}"
        for target in report.targets
        for failure in target.failures
    ]


def failure_text(failure: BackendFailure) -> str:
    """Which backend made no file, why, and what to do about it."""
    hint = f" ({failure.hint})" if failure.hint else ""
    return f"no file of backend '{failure.backend}': {failure.message}{hint}"


def overrun_lines(report: Report) -> list[str]:
    """A line for each broken budget, naming the file that breaks it most, and for each failed
    parity check. If nothing is broken, a line for each unverified budget."""
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
                strays.append(f"{where}: parity failed: {_strayed(artifact.parity)}")
    broken = [line for (verdict, _, _), (_, line) in worst.items() if verdict == "fail"]
    return [*broken, *strays] or [line for _, line in worst.values()]


def _strayed(parity: Parity) -> str:
    """The largest difference, and the tolerance."""
    if parity.max_lsb is None:
        return parity.reason or f"{parity.max_relative} relative, {parity.tolerance:g} allowed"
    return f"{parity.max_lsb:g} LSB away from {parity.reference}, {parity.tolerance:g} allowed"


def _line(where: str, one: Judgement) -> str:
    if one.verdict == "unverified":
        return f"{where}: {format_budget(one.metric, one.limit)} is unverified: {one.reason}"
    tried = next((words for start, words in ADVICE if one.metric.startswith(start)), "")
    assert one.value is not None
    beyond = abs(one.value - one.limit)
    side = "below" if one.value < one.limit else "over"
    excess = f"is {beyond:.4g} {side} its limit of {one.limit:g}"
    if one.reason.startswith("the interval"):
        excess = f"misses its limit of {one.limit:g}: {one.reason}"
    return f"{where}: {one.metric} = {one.value:.4g} {excess}; try {tried}"


def best_micro_file(artifacts: tuple[ArtifactReport, ...], wanted: str) -> ArtifactReport | None:
    """The file to generate sources from: the int8 one in the first available format. Plain C is
    generated from TFLite; the micro runtime also takes the output of Vela."""
    formats = ("tflite",) if wanted == "c" else ("vela", "tflite")
    for name in formats:
        for artifact in artifacts:
            if artifact.format == name and artifact.precision == "int8":
                return artifact
    return None
