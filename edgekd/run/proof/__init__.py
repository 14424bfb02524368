"""Checks the compiled files: accuracy of the file itself, parity with its reference, and cost.
Every artifact that can run here runs over the whole test set; latency and memory are measured on
the target's own kind of machine only. The uncompressed teacher, compiled for the same runtime, is
measured in the same process, so that "times faster" compares like with like.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.installed import tool_versions
from edgekd.measure.budgets import judge
from edgekd.report.only_size import only_size_counts
from edgekd.report.values import ArtifactReport, TargetReport
from edgekd.run.compiled import Compiled
from edgekd.run.plan import Plan, PlannedTarget, report_key
from edgekd.run.proof.artifact_report import report_of
from edgekd.run.proof.costs import costs_of
from edgekd.run.proof.outputs import TeacherOutputs, inherited, proof_of
from edgekd.run.proof.place import Place, place_for
from edgekd.stages import Progress
from edgekd.store import code_key, key_of
from edgekd.values.target import Target

__all__ = ["TeacherOutputs", "prove"]


def prove(
    plan: Plan,
    planned: PlannedTarget,
    made: Sequence[Compiled],
    baseline: Compiled | None,
    original: TeacherOutputs,
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
        _judged(plan, planned, report, reports, str(each.artifact.path.relative_to(folder)))
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
        return "this run compiles no teacher"
    if plan.data.train.paired is not None:
        return "the model sees another view of the samples than what is deployed"
    return "the model is a black box: nothing to compile"


def _proved(
    plan: Plan,
    target: Target,
    place: Place,
    everything: Sequence[Compiled],
    original: TeacherOutputs,
    progress: Progress,
) -> list[ArtifactReport]:
    key = key_of(
        code_key(measured=True),
        [each.artifact.model_dump(mode="json", exclude={"path"}) for each in everything],
        [plan.data.sha256, plan.original.key, plan.request.device, plan.request.quick],
        report_key(plan.request.recipe),
        [target.model_dump(mode="json", exclude={"budgets"}), place.facts, tool_versions()],
    )
    found = plan.store.find("proof", key)
    if found is None:
        proofs = [proof_of(plan, target, place, each, original, progress) for each in everything]
        proofs = [
            inherited(each.artifact, proof, everything, proofs)
            for each, proof in zip(everything, proofs, strict=True)
        ]
        costs = costs_of(plan, target, place, everything, progress)
        tables = [
            report_of(each.artifact, proof, cost).model_dump(mode="json")
            for each, proof, cost in zip(everything, proofs, costs, strict=True)
        ]

        def write(folder: Path) -> None:
            (folder / "reports.json").write_text(json.dumps(tables) + "\n")
            for each, proof in zip(everything, proofs, strict=True):
                if proof.reference is not None:
                    np.savez(folder / f"{each.artifact.sha256}.npz", *proof.reference)

        found = plan.store.publish("proof", key, write)
    tables = json.loads((found / "reports.json").read_text())
    return [ArtifactReport.model_validate(table) for table in tables]


FOOTPRINT = ("size", "memory")
"""Budgets of what is deployed, not of what it was made of."""


def _judged(
    plan: Plan,
    planned: PlannedTarget,
    report: ArtifactReport,
    reports: Sequence[ArtifactReport],
    path: str,
) -> ArtifactReport:
    limits = planned.budgets
    if only_size_counts(report, reports):
        limits = {name: limit for name, limit in limits.items() if name.startswith("size")}
    if plan.request.product not in ("", report.format):
        limits = {name: limit for name, limit in limits.items() if not name.startswith(FOOTPRINT)}
    budgets = judge(limits, report.measurements, plan.request.accept)  # type: ignore[arg-type]
    return report.model_copy(update={"budgets": tuple(budgets), "path": path})
