"""A run of `edgekd compress`: plan, stages, files, proof and report."""

# code-key: presents

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgekd.errors import EdgekdError
from edgekd.report.values import BackendFailure, Report, StageReport, TargetReport
from edgekd.run.compiled import Compiled, publish_artifact
from edgekd.run.diagnosing import cost_findings, network_findings
from edgekd.run.lock.lockfile import write_lock
from edgekd.run.log import errors_logged
from edgekd.run.plan import Plan, PlannedTarget, keep_plan
from edgekd.run.plan.planned import TargetFiles
from edgekd.run.proof import TeacherOutputs, prove
from edgekd.run.reporting import make_report, write_results
from edgekd.stages import Progress
from edgekd.store import code_key, exclusive, key_of
from edgekd.values.tree import concatenated, leaves, like


def run_plan(plan: Plan, progress: Progress) -> Report:
    """Run a plan and write its report into the output folder, which is locked against other
    runs."""
    with exclusive(plan.request.out), errors_logged(plan.request.out):
        keep_plan(plan)
        original = _original(plan)
        stages: dict[str, StageReport] = {}
        targets: list[TargetReport] = []
        failures: dict[str, dict[str, EdgekdError]] = {}
        for planned in plan.targets:
            started = time.perf_counter()
            made = plan.subject.make(plan, planned, progress)
            failures[planned.target.name] = made.failures
            targets.append(_proved(plan, planned, made, original, progress))
            seconds = time.perf_counter() - started
            for stage in plan.subject.stage_reports(made, targets[-1].artifacts, seconds):
                stages.setdefault(stage.key or planned.target.name, stage)
            layers = plan.subject.layers(plan, made)
        report = make_report(plan, original, tuple(stages.values()), targets, layers)
        write_results(plan, report, failures)
        write_lock(plan, report)
    return report.kept_in(plan.request.out)


def _proved(
    plan: Plan,
    planned: PlannedTarget,
    made: TargetFiles,
    original: TeacherOutputs,
    progress: Progress,
) -> TargetReport:
    """Place one target's files in the output folder, then run, measure and judge them."""
    folder = plan.request.out / "artifacts" / planned.target.name
    baseline = made.baseline
    if baseline:
        suffix = baseline.artifact.path.suffix
        baseline = _published(baseline, folder, f"teacher{suffix}")
    files = [_published(file, folder) for file in made.files]
    report = prove(plan, planned, files, baseline, original, progress)
    findings = cost_findings(plan, report, made.stages)
    if made.network is not None:
        findings = (*network_findings(plan, made.network), *findings)
    failures = tuple(
        BackendFailure(backend=name, message=error.message, hint=error.hint)
        for name, error in made.failures.items()
    )
    return report.model_copy(update={"diagnostics": findings, "failures": failures})


def _published(file: Compiled, folder: Path, name: str = "") -> Compiled:
    artifact = publish_artifact(file.artifact, folder, name)
    return replace(file, artifact=artifact, is_baseline=bool(name))


def _original(plan: Plan) -> TeacherOutputs:
    """The trained model's outputs on the test set, cached by content."""
    test = plan.data.test
    key = key_of(code_key(), torch.__version__, plan.original.key, plan.data.sha256)
    stored = plan.store.find("original", key)
    if stored is None:
        with torch.no_grad():
            parts = [plan.original.logits(x) for x, _ in test.as_shown.batches(500)]
        arrays = [leaf.numpy() for leaf in leaves(concatenated(parts))]
        stored = plan.store.publish(
            "original", key, lambda folder: np.savez(folder / "outputs.npz", *arrays)
        )
    with np.load(stored / "outputs.npz") as kept, torch.no_grad():
        tensors = [torch.from_numpy(kept[name]) for name in kept.files]
        form = plan.original.logits(test.first(1).shown)
    return TeacherOutputs(like(form, tensors), test.y.numpy(), plan.data.task)
