"""Proves what was compiled: accuracy of the file itself, parity with its reference, and its cost.

Every artifact runs over the whole test set where it can run at all; latency and memory are measured
on the target's own kind of machine only. The uncompressed teacher, compiled for the same runtime,
is measured in the same process, so that "times faster" compares like with like.
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.accuracy import (
    accuracy_measurement,
    drop_measurement,
    mean_measurement,
    scores_of,
)
from edgekd.artifact import Artifact
from edgekd.blame import blame
from edgekd.boards.root import missing_tools
from edgekd.budgets import judge
from edgekd.compiled import Compiled
from edgekd.devices import Device
from edgekd.devices._user_mode import open_user_mode
from edgekd.devices.opening import open_device
from edgekd.diagnosing import file_findings
from edgekd.diagnostics import Finding
from edgekd.errors import EdgekdError
from edgekd.firmware.emulation import BOARDS
from edgekd.firmware.emulation import missing_tools as cortex_m_tools
from edgekd.measurement import Kind, Measurement
from edgekd.measuring import measure
from edgekd.meters.latency import ratio
from edgekd.meters.plan import static_measurements
from edgekd.parity import Parity, compare, first_difference
from edgekd.plan import Plan, PlannedTarget
from edgekd.quant.inspection import output_scale
from edgekd.report.values import ArtifactReport, TargetReport
from edgekd.stages import Progress
from edgekd.store import code_key, key_of
from edgekd.target import Target
from edgekd.tasks import Task
from edgekd.tasks.classification import CLASSIFICATION
from edgekd.training import predict

COSTS = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "peak_memory_bytes", "energy_mj")
TOLERANCE = {
    "fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2,
    "bf16": 1e-3, "int4": 5e-2, "ternary": 5e-2, "binary": 5e-2, "mixed": 5e-2,
    "clustered": 1e-3,
}  # fmt: skip
"""How far a file with float outputs may lie from its module, relative to the largest output; int8
ones have float outputs where the last layers stay in float, and rounding adds up before them. For
matrices of a few bits ONNX Runtime's MatMulNBits rounds the activations to int8 as well."""

STORED = "huffman"
"""The runtime of files that are only kept: they are judged by their size alone."""

STORED_REASON = "kept for flash: it gives the ONNX file back bit for bit, whose numbers hold"

MAKERS = {
    "onnxruntime": "onnx", "litert": "tflite", "tvm": "tvm", "edgetpu": "edgetpu", "c": "c",
}  # fmt: skip
"""Which backend's table of the target has the options of a runtime."""


@dataclass(frozen=True)
class Original:
    """The trained model's outputs (N, ...) on the test set, with its targets (N, ...): what every
    artifact is compared with."""

    outputs: np.ndarray
    y: np.ndarray
    task: Task = CLASSIFICATION

    @property
    def scores(self) -> np.ndarray:
        """(N,) each test sample's score, 0 to 1."""
        return scores_of(self.outputs, self.y, "the trained model", self.task)


@dataclass(frozen=True)
class Place:
    """Where one target's files run. On the target's own kind of machine everything is measured;
    elsewhere `reason` says what is missing, outputs are `simulated` and there is no cost."""

    device: Device
    reason: str = ""

    @property
    def kind(self) -> Kind:
        """What a number that comes from outputs is there."""
        return "simulated" if self.reason else self.device.kind


def place_for(plan: Plan, target: Target) -> Place:
    """The device the user named, this machine, or an emulator of the target's processor."""
    if plan.request.device:
        return Place(open_device(plan.request.device))
    machine = platform.machine().lower()
    here = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if target.hardware.architecture != here:
        device, note = _emulator(target)
        return Place(device, f"this machine is {here}; name a {target.title} by --device{note}")
    if target.accelerators:
        name = target.accelerators[0].name
        return Place(open_device("host"), f"needs the {name}; run on a {target.title}")
    return Place(open_device("host"))


def _emulator(target: Target) -> tuple[Device, str]:
    """The target's processor under QEMU where that is installed, else this machine."""
    if target.hardware.architecture == "aarch64" and not missing_tools():
        try:
            return open_user_mode(target.name), ""
        except EdgekdError as error:
            return open_device("host"), f" (no emulator: {error.message})"
    if "c" in target.backends and not cortex_m_tools() and target.hardware.cpu in BOARDS:
        return open_device(f"cortex-m://{target.name}"), ""
    return open_device("host"), " (no emulator installed)"


def prove(
    plan: Plan,
    planned: PlannedTarget,
    made: Sequence[Compiled],
    baseline: Compiled | None,
    original: Original,
    progress: Progress,
) -> TargetReport:
    """One target's part of the report: every file run, measured and judged.

    What was proved is kept by content like a stage, and budgets are judged anew each time. Files
    that were measured before are not measured again unless `--no-resume` asks for it.
    """
    place = place_for(plan, planned.target)
    everything = [*([baseline] if baseline else []), *made]
    try:
        reports = _proved(plan, planned.target, place, everything, original, progress)
    finally:
        place.device.close()
    folder = plan.request.out
    reports = [
        _judged(plan, planned, report, str(each.artifact.path.relative_to(folder)))
        for report, each in zip(reports, everything, strict=True)
    ]
    return TargetReport(
        name=planned.target.name,
        title=planned.target.title,
        device=place.device.name,
        baseline=reports[0].model_copy(update={"budgets": ()}) if baseline else None,
        artifacts=tuple(reports[1:] if baseline else reports),
        notes=(place.reason,) if place.reason else (),
        reasons={} if baseline else {"baseline": _no_baseline(plan)},
    )


def _no_baseline(plan: Plan) -> str:
    if not plan.request.baseline:
        return "a build of sources compiles no teacher"
    if plan.data.train.paired is not None:
        return "the model sees another view of the samples than what is deployed"
    return "the model is a black box: nothing to compile"


def _proved(
    plan: Plan,
    target: Target,
    place: Place,
    everything: Sequence[Compiled],
    original: Original,
    progress: Progress,
) -> list[ArtifactReport]:
    key = key_of(
        code_key(),
        [each.artifact.model_dump(mode="json", exclude={"path"}) for each in everything],
        [plan.data.sha256, plan.original.key, plan.request.device, plan.request.quick],
        plan.request.recipe.report.model_dump(mode="json"),
        [target.model_dump(mode="json", exclude={"budgets"}), platform.platform()],
    )
    found = plan.store.find("proof", key) if plan.request.resume else None
    if found is None:
        proofs = [_outputs(plan, target, place, each, original, progress) for each in everything]
        proofs = [
            _inherited(each.artifact, proof, everything, proofs)
            for each, proof in zip(everything, proofs, strict=True)
        ]
        costs = _costs(plan, target, place, [each.artifact for each in everything], progress)
        tables = [
            _report(each.artifact, proof, cost).model_dump(mode="json")
            for each, proof, cost in zip(everything, proofs, costs, strict=True)
        ]

        def write(folder: Path) -> None:
            (folder / "reports.json").write_text(json.dumps(tables) + "\n")
            for each, proof in zip(everything, proofs, strict=True):
                if proof.reference is not None:
                    np.save(folder / f"{each.artifact.sha256}.npy", proof.reference)

        found = plan.store.publish("proof", key, write)
    tables = json.loads((found / "reports.json").read_text())
    return [ArtifactReport.model_validate(table) for table in tables]


SAME_NUMBERS = "computes_as"
"""The fact that names the file (by SHA-256) whose outputs another one is defined to give."""


def _inherited(
    artifact: Artifact, proof: "_Proof", everything: Sequence[Compiled], proofs: Sequence["_Proof"]
) -> "_Proof":
    """A file that can't run here takes the accuracy, as an estimate, of the one that it was made
    of, where its compiler keeps every number as it is."""
    source = artifact.facts.get(SAME_NUMBERS)
    if source is None or proof.accuracy.value is not None:
        return proof
    for each, other in zip(everything, proofs, strict=True):
        if each.artifact.sha256 == source and other.accuracy.value is not None:
            told = {
                "kind": "estimated",
                "protocol": f"that of {each.artifact.path.name}, whose arithmetic it keeps",
            }
            return replace(
                proof,
                accuracy=other.accuracy.model_copy(update=told),
                drop=other.drop.model_copy(update=told),
            )
    return proof


def _judged(
    plan: Plan, planned: PlannedTarget, report: ArtifactReport, path: str
) -> ArtifactReport:
    limits = planned.budgets
    if report.runtime == STORED:
        limits = {name: limit for name, limit in limits.items() if name.startswith("size")}
    budgets = judge(limits, report.measurements, plan.request.accept)  # type: ignore[arg-type]
    return report.model_copy(update={"budgets": tuple(budgets), "path": path})


def _report(artifact: Artifact, proof: "_Proof", costs: Sequence[Measurement]) -> ArtifactReport:
    told = {one.metric: one for one in artifact.measurements}
    size = told.pop("size_bytes", None) or Measurement(
        metric="size_bytes", value=float(artifact.bytes), kind="measured", device="host"
    )
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
            size,
            *_told(costs, tuple(told.values())),
            *_told_by_the_file(artifact, (*costs, *told.values())),
        ),
        placements=artifact.placements,
        versions=artifact.versions,
        lineage=artifact.lineage,
        facts=artifact.facts,
        companions=artifact.companions,
        notes=artifact.notes,
        diagnostics=proof.findings,
        reasons=_reasons(proof),
    )


def _told(costs: Sequence[Measurement], of_the_tool: Sequence[Measurement]) -> list[Measurement]:
    """What was measured, and what the compiler says of the metrics that nothing measured."""
    known = {one.metric for one in costs if one.value is not None}
    told = [one for one in of_the_tool if one.metric not in known]
    named = {one.metric for one in told}
    return [*(one for one in costs if one.metric not in named), *told]


def _told_by_the_file(artifact: Artifact, known: Sequence[Measurement]) -> list[Measurement]:
    """Planned memory and estimated energy, where nothing else has told them."""
    if artifact.path.suffix not in (".onnx", ".tflite"):
        return []
    named = {"size_bytes", *(one.metric for one in known if one.value is not None)}
    return [one for one in static_measurements(artifact) if one.metric not in named]


def _reasons(proof: "_Proof") -> dict[str, str]:
    found = {
        "accuracy": proof.accuracy.value,
        "accuracy_drop": proof.drop.value,
        "agreement_with_teacher": proof.agreement,
        "parity": proof.parity,
    }
    return {name: proof.reason for name, value in found.items() if value is None}


NO_REFERENCE = "a file alone has no graph in PyTorch to be compared with"


@dataclass(frozen=True)
class _Proof:
    """What one file computes: its accuracy, and how it compares with teacher and reference."""

    accuracy: Measurement
    drop: Measurement
    agreement: float | None
    parity: Parity | None
    reference: np.ndarray | None = None
    reason: str = ""
    further: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()


def _outputs(
    plan: Plan,
    target: Target,
    place: Place,
    each: Compiled,
    original: Original,
    progress: Progress,
) -> _Proof:
    artifact, device = each.artifact, place.device
    progress(f"run {artifact.path.name} on {device.name}", 0, 1)
    reason = STORED_REASON if artifact.runtime == STORED else device.can_run(artifact)
    if each.is_baseline and place.reason:
        reason = "the teacher's file is for the target's own kind of machine only"
    if reason:
        gone = [unavailable(name, device.name, reason) for name in ("accuracy", "accuracy_drop")]
        return _Proof(gone[0], gone[1], None, None, reason=reason)
    inputs = plan.data.test.x.numpy()
    outputs = device.infer(artifact, inputs, options_for(target, artifact))
    reference = predict(each.reference.module, plan.data.test.x).numpy() if each.reference else None
    task = original.task
    scores = scores_of(outputs, original.y, str(artifact.path), task)
    progress(f"run {artifact.path.name} on {device.name}", 1, 1)
    return _Proof(
        accuracy_measurement(scores, device.name, place.kind, task.metric),
        drop_measurement(original.scores, scores, device.name, place.kind, task.metric),
        _agreement(task, outputs, original.outputs),
        None
        if reference is None
        else blame(
            device,
            artifact,
            options_for(target, artifact),
            inputs,
            _parity(target, each, inputs, outputs, reference, task),
        ),
        reference,
        NO_REFERENCE if reference is None else "",
        (
            *_further(place, task, outputs, original.y),
            *_played(target, place, artifact, task),
        ),
        _diagnosed(plan, target, place, each, outputs, original),
    )


def _diagnosed(
    plan: Plan,
    target: Target,
    place: Place,
    each: Compiled,
    outputs: np.ndarray,
    original: Original,
) -> tuple[Finding, ...]:
    """The diagnostics of a deployed file; the teacher's own file has none."""
    if each.is_baseline:
        return ()
    run = _runner(target, place, each.artifact)
    name = each.artifact.path.name
    return file_findings(plan, name, place.kind, outputs, original.outputs, run)


def _runner(
    target: Target, place: Place, artifact: Artifact
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The file as a function of inputs (B, ...)."""

    def run(x: torch.Tensor) -> torch.Tensor:
        outputs = place.device.infer(artifact, x.numpy(), options_for(target, artifact))
        return torch.from_numpy(np.ascontiguousarray(outputs))

    return run


def _agreement(task: Task, outputs: np.ndarray, others: np.ndarray) -> float:
    """How far the outputs say what others do, 0 to 1."""
    mine, theirs = (torch.from_numpy(np.ascontiguousarray(each)) for each in (outputs, others))
    return float(task.agreement(mine, theirs).double().mean())


def _further(
    place: Place, task: Task, outputs: np.ndarray, y: np.ndarray
) -> tuple[Measurement, ...]:
    """What else the task tells of each sample."""
    told = task.further(torch.from_numpy(np.ascontiguousarray(outputs)), torch.from_numpy(y))
    return tuple(
        mean_measurement(
            metric, values.numpy(), place.device.name, place.kind, f"over {len(values)} samples"
        )
        for metric, values in told.items()
    )


def _played(
    target: Target, place: Place, artifact: Artifact, task: Task
) -> tuple[Measurement, ...]:
    """What the task finds by letting the file act."""
    run = _runner(target, place, artifact)
    return tuple(
        mean_measurement(
            metric, values.numpy(), place.device.name, place.kind, f"{len(values)} episodes"
        )
        for metric, values in task.played(run).items()
    )


def _parity(
    target: Target,
    each: Compiled,
    inputs: np.ndarray,
    outputs: np.ndarray,
    reference: np.ndarray,
    task: Task,
) -> Parity:
    """Against the candidate itself in PyTorch; a file that fails has its first layer named."""
    artifact = each.artifact
    assert each.reference is not None
    quantized = artifact.precision == "int8"
    scale = _output_step(each) if quantized else None
    lsb = float(target.quantization.tolerance_lsb)
    tolerance = lsb if scale else TOLERANCE[artifact.precision]
    name = "the fake-quantized graph in PyTorch" if quantized else "the float module in PyTorch"
    parity = compare(reference, outputs, scale, tolerance, name)
    if task != CLASSIFICATION:
        parity = parity.model_copy(update={"top1_agreement": _agreement(task, outputs, reference)})
    if parity.verdict == "fail" and quantized:
        worst = inputs[parity.worst_sample : parity.worst_sample + 1]
        layer = first_difference(each.reference.module, artifact, worst)
        return parity.model_copy(update={"first_difference": layer})
    return parity


def _output_step(each: Compiled) -> float | None:
    """The step of the output's grid: the file's own, or the graph's last quantizer's."""
    assert each.reference is not None
    return each.artifact.outputs[0].scale or output_scale(each.reference.module)


def unavailable(metric: str, device: str, reason: str) -> Measurement:
    """A metric without a value, and why."""
    return Measurement(metric=metric, value=None, kind="unavailable", device=device, reason=reason)


def options_for(target: Target, artifact: Artifact) -> dict[str, Any]:
    """The target's table for what runs a file."""
    return target.backends.get(MAKERS.get(artifact.runtime, ""), {})


def _costs(
    plan: Plan, target: Target, place: Place, artifacts: Sequence[Artifact], progress: Progress
) -> list[tuple[Measurement, ...]]:
    """Latency, memory and energy of every file that this place can tell them of, interleaved, and
    how many times faster than the first one, the teacher's, each is."""
    device = place.device
    reasons = [place.reason or device.can_run(artifact) for artifact in artifacts]
    runnable = [artifact for artifact, why in zip(artifacts, reasons, strict=True) if not why]
    rows: list[tuple[Measurement, ...]] = []
    if runnable:
        options = [options_for(target, artifact) for artifact in runnable]
        what = f"measure {len(runnable)} files on {device.name}"
        progress(what, 0, 1)
        quick = plan.request.quick
        samples, rows = measure(device, runnable, options, target.sensors, quick=quick)
        rows = [
            (*row, ratio(samples[0], each, device.name, device.kind))
            for row, each in zip(rows, samples, strict=True)
        ]
        progress(what, 1, 1)
    taken = iter(rows)
    return [
        tuple(unavailable(metric, device.name, why) for metric in COSTS) if why else next(taken)
        for why in reasons
    ]
