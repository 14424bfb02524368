"""One file's part of the report, put together from what was proved of it."""

from collections.abc import Sequence

from edgekd.measure.meters.plan import static_measurements
from edgekd.report.values import ArtifactReport
from edgekd.run.proof.costs import Costs
from edgekd.run.proof.outputs import Proof
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Measurement


def report_of(artifact: Artifact, proof: Proof, costs: Costs) -> ArtifactReport:
    """What was measured of a file, what its compiler and the file itself say, and its reasons."""
    return ArtifactReport(
        path=artifact.path.name,
        format=artifact.format,
        runtime=artifact.runtime,
        precision=artifact.precision,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        accuracy=proof.accuracy.value,
        accuracy_ci=proof.accuracy.ci,
        accuracy_drop=proof.drop.value,
        accuracy_drop_ci=proof.drop.ci,
        agreement_with_teacher=proof.agreement,
        parity=proof.parity,
        measurements=(
            proof.accuracy,
            proof.drop,
            *proof.further,
            *cost_measurements(artifact, costs.measurements),
        ),
        placements=artifact.placements,
        versions=artifact.versions,
        lineage=artifact.lineage,
        facts=artifact.facts,
        companions=artifact.companions,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        notes=(*artifact.notes, *costs.notes),
        diagnostics=proof.findings,
        layer_times=costs.layers,
        reasons=_reasons(proof),
    )


def cost_measurements(artifact: Artifact, costs: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Size, latency, memory and energy of a file: what was measured (`costs`), and for the rest
    what its compiler and the file itself say."""
    reported = {one.metric: one for one in artifact.measurements}
    size = reported.pop("size_bytes", None) or Measurement(
        metric="size_bytes", value=float(artifact.bytes), kind="measured", device="host"
    )
    return (
        size,
        *_with_compiler(costs, tuple(reported.values())),
        *_static_measurements(artifact, (*costs, *reported.values())),
    )


def _with_compiler(
    costs: Sequence[Measurement], of_compiler: Sequence[Measurement]
) -> list[Measurement]:
    """The measured costs, and the compiler's values for metrics that were not measured."""
    known = {one.metric for one in costs if one.value is not None}
    reported = [one for one in of_compiler if one.metric not in known]
    named = {one.metric for one in reported}
    return [*(one for one in costs if one.metric not in named), *reported]


def _static_measurements(artifact: Artifact, known: Sequence[Measurement]) -> list[Measurement]:
    """Planned memory and estimated energy, unless they are already known."""
    if artifact.path.suffix not in (".onnx", ".tflite"):
        return []
    named = {"size_bytes", *(one.metric for one in known if one.value is not None)}
    return [one for one in static_measurements(artifact) if one.metric not in named]


def _reasons(proof: Proof) -> dict[str, str]:
    found = {
        "accuracy": proof.accuracy.value,
        "accuracy_drop": proof.drop.value,
        "agreement_with_teacher": proof.agreement,
        "parity": proof.parity,
    }
    return {name: proof.reason for name, value in found.items() if value is None}
