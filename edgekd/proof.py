"""Proves what was compiled: accuracy of the file itself, parity with its reference, and its cost.

Every artifact runs over the whole test set where it can run at all; latency and memory are measured
on the target's own kind of machine only. The uncompressed teacher, compiled for the same runtime,
is measured in the same process, so that "times faster" compares like with like.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.accuracy import accuracy_measurement, drop_measurement
from edgekd.artifact import Artifact
from edgekd.budgets import judge
from edgekd.candidate import Candidate
from edgekd.devices import Device
from edgekd.devices.opening import open_device
from edgekd.measurement import Kind, Measurement
from edgekd.meters.energy import energy_measurement
from edgekd.meters.latency import latency_measurements
from edgekd.meters.memory import memory_measurements
from edgekd.parity import Parity, compare, first_difference
from edgekd.pipeline import Compiled, publish_artifact
from edgekd.plan import Plan, PlannedTarget
from edgekd.report.values import ArtifactReport, TargetReport
from edgekd.stages import Progress
from edgekd.store import key_of
from edgekd.target import Target
from edgekd.training import predict

MAKERS = {"onnxruntime": "onnx", "litert": "tflite", "tvm": "tvm", "edgetpu": "edgetpu"}
"""Which backend's table of the target has the options of a runtime."""


@dataclass(frozen=True)
class Original:
    """The trained model's outputs on the test set, which every artifact is compared with."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Which test samples it gets right."""
        right: np.ndarray = self.logits.argmax(1) == self.labels
        return right


@dataclass(frozen=True)
class Place:
    """Where one target's files run: for their outputs, and (if it is the target's own kind of
    machine) for their cost; `reason` says why there is no cost."""

    device: Device
    reason: str = ""


def place_for(plan: Plan, target: Target) -> Place:
    """The device the user named, or this machine."""
    url = plan.request.device or "host"
    device = open_device(url)
    if plan.request.device:
        return Place(device)
    here = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if target.hardware.architecture != here:
        return Place(device, f"needs a {target.title}: this machine is {here}; name one by --device")
    if target.accelerators:
        return Place(device, f"needs a {target.title} with its {target.accelerators[0].name}")
    return Place(device)


def prove(
    plan: Plan,
    planned: PlannedTarget,
    made: Sequence[Compiled],
    baseline: Compiled | None,
    original: Original,
    progress: Progress,
) -> TargetReport:
    """One target's part of the report: every file run, measured and judged."""
    target, place = planned.target, place_for(plan, planned.target)
    everything = [*([baseline] if baseline else []), *made]
    try:
        proofs = [_outputs(plan, target, place, each, original, progress) for each in everything]
        costs = _costs(plan, target, place, [each.artifact for each in everything], progress)
    finally:
        place.device.close()
    reports = [
        _report(plan, planned, each, proof, cost)
        for each, proof, cost in zip(everything, proofs, costs, strict=True)
    ]
    first = reports[0].model_copy(update={"budgets": ()}) if baseline else None
    return TargetReport(
        name=target.name,
        title=target.title,
        device=place.device.name,
        baseline=first,
        artifacts=tuple(reports[1:] if baseline else reports),
        notes=(place.reason,) if place.reason else (),
        reasons={} if baseline else {"baseline": "the model is a black box: nothing to compile"},
    )


@dataclass(frozen=True)
class _Proof:
    """What one file computes: its accuracy, and how it compares with teacher and reference."""

    accuracy: Measurement
    drop: Measurement
    agreement: float | None
    parity: Parity | None
    reason: str = ""


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
    reason = device.can_run(artifact)
    if reason:
        gone = [unavailable(name, device.name, reason) for name in ("accuracy", "accuracy_drop")]
        return _Proof(gone[0], gone[1], None, None, reason)
    inputs = plan.data.test.x.numpy()
    outputs = device.infer(artifact, inputs, options_for(target, artifact))
    right = outputs.argmax(1) == original.labels
    progress(f"run {artifact.path.name} on {device.name}", 1, 1)
    return _Proof(
        accuracy_measurement(right, device.name),
        drop_measurement(original.correct, right, device.name),
        float((outputs.argmax(1) == original.logits.argmax(1)).mean()),
        _parity(target, each, inputs, outputs, plan),
    )


def _parity(
    target: Target, each: Compiled, inputs: np.ndarray, outputs: np.ndarray, plan: Plan
) -> Parity:
    """Against the candidate itself in PyTorch; a file that fails has its first layer named."""
    artifact = each.artifact
    reference = predict(each.reference.module, plan.data.test.x).numpy()
    quantized = artifact.precision == "int8"
    scale = _output_step(each.reference, artifact) if quantized else None
    tolerance = float(target.quantization.tolerance_lsb) if quantized else TOLERANCE[artifact.precision]
    name = "the fake-quantized graph in PyTorch" if quantized else "the float module in PyTorch"
    parity = compare(reference, outputs, scale, tolerance, name)
    if parity.verdict == "fail" and quantized:
        worst = inputs[parity.worst_sample : parity.worst_sample + 1]
        layer = first_difference(each.reference.module, artifact, worst)
        return parity.model_copy(update={"first_difference": layer})
    return parity


def unavailable(metric: str, device: str, reason: str) -> Measurement:
    """A metric without a value, and why."""
    return Measurement(metric=metric, value=None, kind="unavailable", device=device, reason=reason)


def options_for(target: Target, artifact: Artifact) -> dict[str, Any]:
    """The target's table for what runs a file."""
    return target.backends.get(MAKERS.get(artifact.runtime, ""), {})


def _costs(
    plan: Plan, target: Target, place: Place, artifacts: Sequence[Artifact], progress: Progress
) -> list[tuple[Measurement, ...]]:
    """Latency, memory and energy of every file that this place can tell them of, interleaved."""
    name = place.device.name
    reasons = [place.reason or place.device.can_run(artifact) for artifact in artifacts]
    runnable = [artifact for artifact, why in zip(artifacts, reasons, strict=True) if not why]
    options = [options_for(target, artifact) for artifact in runnable]
    progress(f"measure {len(runnable)} files on {name}", 0, 1)
    samples = iter(
        place.device.benchmark(runnable, options, quick=plan.request.quick) if runnable else []
    )
    progress(f"measure {len(runnable)} files on {name}", 1, 1)
    costs = []
    for why in reasons:
        if why:
            costs.append(tuple(unavailable(metric, name, why) for metric in COSTS))
            continue
        taken = next(samples)
        costs.append(
            (
                *latency_measurements(taken, name, place.device.kind),
                *memory_measurements(taken, name),
                energy_measurement(target, taken, name),
            )
        )
    return costs
