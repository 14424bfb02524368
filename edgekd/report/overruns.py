"""Each broken budget on one line: by how much, and what to try. A build log ends with these."""

from edgekd.errors import ToolError
from edgekd.measure.budgets import EXIT_CODES, format_budget
from edgekd.measure.parity import Parity
from edgekd.report.advice import advice_for, fault_of
from edgekd.report.values import ArtifactReport, BackendFailure, Report, TargetReport
from edgekd.values.artifact import IN_INTEGERS
from edgekd.values.measurement import Judgement


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
    """A line for each broken budget of the delivered files, naming the file that breaks it most,
    and for each failed parity check, the teacher's own file included. If nothing is broken, a line
    for each unverified budget."""
    worst: dict[tuple[str, str, str], tuple[float, str]] = {}
    strays = []
    for target in report.targets:
        if target.baseline and target.baseline.parity and target.baseline.parity.verdict == "fail":
            where = _place(target, target.baseline)
            strays.append(
                f"{where}: the teacher's own file is wrong, so nothing can be compared with it: "
                f"{_strayed(target.baseline.parity)}"
            )
        for artifact in (each for each in target.artifacts if each.delivered):
            where = _place(target, artifact)
            for one in artifact.budgets:
                key = (one.verdict, target.name, one.metric)
                beyond = abs((one.value or 0.0) - one.limit)
                if one.verdict != "pass" and (key not in worst or beyond > worst[key][0]):
                    worst[key] = (
                        beyond,
                        _line(where, one, advice_for(report, artifact, one.metric)),
                    )
            if artifact.parity and artifact.parity.verdict == "fail":
                strays.append(f"{where}: parity failed: {_strayed(artifact.parity)}")
    broken = [line for (verdict, _, _), (_, line) in worst.items() if verdict == "fail"]
    return [*broken, *strays] or [line for _, line in worst.values()]


def _place(target: TargetReport, artifact: ArtifactReport) -> str:
    return f"{target.name}: {artifact.path.rpartition('/')[2]}"


def _strayed(parity: Parity) -> str:
    """The largest difference, the tolerance, and what it means."""
    fault = fault_of(parity)
    if parity.max_lsb is not None:
        distance = f"{parity.max_lsb:g} LSB away from {parity.reference}"
    elif parity.max_relative is not None:
        distance = f"{parity.max_relative:.2g} of the largest output away from {parity.reference}"
    else:
        return fault
    return f"{distance}, {parity.tolerance:g} allowed; {fault}"


def _line(where: str, one: Judgement, advice: str) -> str:
    if one.verdict == "unverified":
        return f"{where}: {format_budget(one.metric, one.limit)} is unverified: {one.reason}"
    assert one.value is not None
    beyond = abs(one.value - one.limit)
    side = "below" if one.value < one.limit else "over"
    excess = f"is {beyond:.4g} {side} its limit of {one.limit:g}"
    if one.reason.startswith("the interval"):
        excess = f"misses its limit of {one.limit:g}: {one.reason}"
    return f"{where}: {one.metric} = {one.value:.4g} {excess}; {advice}"


def best_micro_file(artifacts: tuple[ArtifactReport, ...], wanted: str) -> ArtifactReport | None:
    """The file to generate sources from: the int8 one in the first available format. Plain C is
    generated from TFLite; the micro runtime also takes the output of Vela."""
    formats = ("tflite",) if wanted == "c" else ("vela", "tflite")
    for name in formats:
        for artifact in artifacts:
            if artifact.format == name and artifact.precision in IN_INTEGERS:
                return artifact
    return None
