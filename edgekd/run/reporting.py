"""Assembles the report of a run from its steps' results, and writes the run's other files."""

# code-key: presents

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import tomli_w

from edgekd.errors import EdgekdError
from edgekd.installed import tool_versions
from edgekd.measure.accuracy import accuracy_measurement
from edgekd.network.cost import totals
from edgekd.report.advice import warnings_for
from edgekd.report.delivery import ALL, delivered, with_delivery
from edgekd.report.files import write_report
from edgekd.report.numbers import verdict_of
from edgekd.report.precisions import with_choices
from edgekd.report.values import Dataset, Layers, Report, StageReport, TargetReport, TeacherReport
from edgekd.run.log import write_log
from edgekd.run.plan.planned import Plan, Request
from edgekd.run.proof import TeacherOutputs
from edgekd.store import write_beside
from edgekd.values.measurement import Verdict
from edgekd.values.recipe import named_files


def make_report(
    plan: Plan,
    original: TeacherOutputs,
    stages: Sequence[StageReport],
    targets: Sequence[TargetReport],
    layers: Layers,
) -> Report:
    """The report of a run whose steps have all finished."""
    request, teacher = plan.request, _teacher(plan, original)
    targets = [_warned(target, stages, teacher.bytes) for target in targets]
    report = Report(
        verdict="unverified",
        seed=request.recipe.seed,
        versions=tool_versions(),
        name=request.recipe.metadata.name or plan.original.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=request.command,
        accepted=request.accept,
        plan=tuple(plan.lines()),
        data=_dataset(plan),
        teacher=teacher,
        stages=tuple(stages),
        layers=layers,
        targets=tuple(targets),
        notes=plan.warnings,
    )
    deliver = ALL if request.product else request.recipe.deliver
    marked = with_delivery(report, deliver)
    return marked.model_copy(update={"verdict": _verdict(marked.targets)})


def _warned(
    target: TargetReport, stages: Sequence[StageReport], teacher_bytes: int | None
) -> TargetReport:
    """The target's files with what speaks against each, and the precisions that are chosen."""
    artifacts = tuple(
        artifact.model_copy(update={"warnings": warnings_for(artifact, stages, teacher_bytes)})
        for artifact in target.artifacts
    )
    return with_choices(target.model_copy(update={"artifacts": artifacts}))


def write_results(
    plan: Plan, report: Report, failures: Mapping[str, Mapping[str, EdgekdError]]
) -> None:
    """Write recipe.toml, log.txt, report.json and report.html into the run's folder; `failures` are
    the errors of each target's backends, which the log holds in full."""
    folder = plan.request.out
    write_beside(folder / "recipe.toml", resolved_recipe(plan.request))
    write_log(folder, report, failures)
    write_report(report, folder)


def _verdict(targets: Sequence[TargetReport]) -> Verdict:
    """Of the delivered files' budgets and parity, the teacher's own file included."""
    return verdict_of([artifact for target in targets for artifact in delivered(target)])


def _dataset(plan: Plan) -> Dataset:
    data = plan.data
    return Dataset(
        name=data.name,
        classes=data.classes,
        train=len(data.train),
        validation=len(data.validation),
        test=len(data.test),
        task=data.task.name,
        metric=data.task.metric,
        sha256=data.sha256,
    )


def _teacher(plan: Plan, original: TeacherOutputs) -> TeacherReport:
    accuracy = accuracy_measurement(original.scores, "host", metric=original.task.metric)
    module = plan.original.module
    if module is None:
        reason = "a black box's parameters can't be counted"
        return TeacherReport(
            name=plan.original.name,
            accuracy=accuracy.value,
            accuracy_ci=accuracy.ci,
            parameters=None,
            macs=None,
            bytes=None,
            reasons=dict.fromkeys(("parameters", "macs", "bytes"), reason),
        )
    cost = totals(module, plan.data.shown)
    return TeacherReport(
        name=plan.original.name,
        accuracy=accuracy.value,
        accuracy_ci=accuracy.ci,
        parameters=cost.parameters,
        macs=cost.macs,
        bytes=cost.bytes,
    )


def resolved_recipe(request: Request) -> str:
    """The recipe as it ran, with every default written out and paths relative to the output
    folder."""
    recipe = request.resolved
    table = recipe.model_dump(mode="json", exclude_none=True)
    for file in named_files(table):
        file.replace(os.path.relpath(recipe.folder / file.path, request.out))
    return tomli_w.dumps(table)
