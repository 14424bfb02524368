"""`edgekd compress`: from the command line's words to a request, a plan, a run and its report."""

# code-key: presents

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from edgekd.errors import Collector, EdgekdError, InputError, raise_all
from edgekd.installed import tool_versions
from edgekd.measure.accuracy import accuracy_measurement
from edgekd.measure.budgets import check_accept, parse_budget, run_verdict
from edgekd.network.cost import layer_costs, totals
from edgekd.report.files import write_report
from edgekd.report.values import (
    ArtifactReport,
    Dataset,
    LayerCost,
    Layers,
    Report,
    StageReport,
    TargetReport,
    TeacherReport,
)
from edgekd.run.compiled import Compiled, publish_artifact
from edgekd.run.diagnosing import cost_findings, network_findings
from edgekd.run.lock.lockfile import write_lock
from edgekd.run.onnx_alone import files_of
from edgekd.run.pipeline import Staged, compile_candidate, compiled
from edgekd.run.pipeline import run_stages as staged_for
from edgekd.run.plan import Plan, PlannedTarget, Request, keep_plan, make_plan, start_key
from edgekd.run.proof import Original, prove
from edgekd.stages import Progress
from edgekd.store import cache_folder, code_key, exclusive, key_of, write_beside
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import LARGEST_SEED, default_recipe, load_recipe, named_files
from edgekd.values.target import Target, load_target, target_files

Say = Callable[[str], None]


def prepare(
    *,
    recipe: Path | None,
    targets: Sequence[str],
    out: Path,
    budgets: Sequence[str] = (),
    device: str | None = None,
    accept: Sequence[str] = (),
    settings: Sequence[str] = (),
    resume: bool = True,
    seed: int | None = None,
    quick: bool = False,
) -> Request:
    """What the command line asked for, checked word by word; all faults come out together."""
    collect = Collector()
    collect.faults.extend(check_accept(accept))
    if not targets:
        collect.faults.append(
            InputError(
                "no target",
                where="--target",
                hint="run 'edgekd targets' for the list, then name one",
            )
        )
    found = [collect.attempt(load_target, name) for name in dict.fromkeys(targets)]
    profiles = [each for each in found if each]
    collect.faults.extend(_namesakes(profiles))
    limits = [collect.attempt(parse_budget, text) for text in budgets]
    overrides = [collect.attempt(_setting, text) for text in settings]
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        allowed = f"0 to {LARGEST_SEED}"
        collect.faults.append(InputError(f"no seed: {seed}", where="--seed", allowed=allowed))
    path = recipe or default_recipe()
    loaded = collect.attempt(load_recipe, path, dict(each for each in overrides if each))
    raise_all(collect.faults)
    assert loaded is not None
    return Request(
        recipe=loaded if seed is None else loaded.model_copy(update={"seed": seed}),
        targets=tuple({each.name: each for each in profiles}.values()),
        out=out.resolve(),
        device=device,
        accept=tuple(accept),
        budgets=dict(limit for limit in limits if limit),
        quick=quick,
        resume=resume,
        cache=cache_folder(),
    )


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise InputError(
            f"'{text}' sets nothing", where="--set", allowed="KEY=VALUE: stage.distill.epochs=3"
        )
    return key.strip(), value.strip()


def _namesakes(targets: Sequence[Target]) -> list[EdgekdError]:
    """A fault for each that has the name of another one: reports and locks go by names."""
    files = target_files()
    known = {each.name: load_target(each.name) for each in targets if each.name in files}
    return [
        InputError(
            f"another target has the name '{target.name}', too",
            where="--target",
            hint="give the file and the 'name' in it a name of their own",
        )
        for target in targets
        if known.setdefault(target.name, target) != target
    ]


def compress(
    request: Request, progress: Progress, say: Say, *, dry_run: bool = False
) -> Report | None:
    """Plan, run, prove and write the report; None for a dry run, which stops after the plan."""
    plan = make_plan(request)
    lines = plan.lines()
    for line in lines:
        say(line)
    if dry_run:
        return None
    with exclusive(request.out):
        return _run(plan, lines, progress)


def _run(plan: Plan, lines: list[str], progress: Progress) -> Report:
    request = plan.request
    keep_plan(plan)
    original = _original(plan)
    stages: dict[str, StageReport] = {}
    targets: list[TargetReport] = []
    for planned in plan.targets:
        staged = (
            Staged(plan.start, plan.start, "", "", ())
            if plan.alone
            else staged_for(plan, planned, progress, start_key(plan))
        )
        for stage in staged.reports:
            stages.setdefault(stage.key, stage)
        started = time.perf_counter()
        targets.append(_target(plan, planned, staged, original, progress))
        if plan.alone and planned.stages:
            seconds = time.perf_counter() - started
            stages[planned.target.name] = _calibration_report(targets[-1].artifacts[0], seconds)
    report = Report(
        verdict=_verdict(targets),
        seed=request.recipe.seed,
        versions=tool_versions(),
        name=plan.data.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["edgekd", *sys.argv[1:]]),
        accepted=request.accept,
        plan=tuple(lines),
        data=_dataset(plan),
        teacher=_teacher(plan, original),
        stages=tuple(stages.values()),
        layers=_layers(plan, staged),
        targets=tuple(targets),
        notes=plan.warnings,
    )
    write_beside(request.out / "recipe.toml", resolved_recipe(request))
    done = [_told(stage) for stage in report.stages]
    write_beside(request.out / "log.txt", "\n".join([*lines, *done]) + "\n")
    write_report(report, request.out)
    write_lock(plan, report)
    return report


def _told(stage: StageReport) -> str:
    """A stage as the log has it."""
    accuracy = "not known" if stage.accuracy is None else f"{stage.accuracy:.4f}"
    state = "reused" if stage.cached else f"{stage.seconds:.1f} s"
    return f"done: {stage.line} ({state}), test accuracy {accuracy}, key {stage.key}"


def _calibration_report(artifact: ArtifactReport, seconds: float) -> StageReport:
    """The stage of an ONNX file alone, which the file itself is the result of; `seconds` are those
    of calibrating and proving it."""
    reason = "a file alone: its layers are not counted"
    return StageReport(
        kind="quantize",
        cached=False,
        seconds=round(seconds, 2),
        accuracy=artifact.accuracy,
        accuracy_ci=artifact.accuracy_ci,
        parameters=None,
        macs=None,
        bytes=artifact.bytes,
        line=artifact.lineage[-1],
        reasons={
            "parameters": reason,
            "macs": reason,
            **({} if artifact.accuracy is not None else {"accuracy": "not run"}),
        },
    )


def _target(
    plan: Plan, planned: PlannedTarget, staged: Staged, original: Original, progress: Progress
) -> TargetReport:
    folder = plan.request.out / "artifacts" / planned.target.name
    baseline, made = _compiled(plan, planned, staged, progress)
    if baseline:
        suffix = baseline.artifact.path.suffix
        baseline = _published(baseline, folder, f"teacher{suffix}")
    made = [_published(each, folder) for each in made]
    report = prove(plan, planned, made, baseline, original, progress)
    found = cost_findings(plan, report, staged.reports)
    if not plan.alone:
        found = (*network_findings(plan, staged.floating), *found)
    return report.model_copy(update={"diagnostics": found})


def _compiled(
    plan: Plan, planned: PlannedTarget, staged: Staged, progress: Progress
) -> tuple[Compiled | None, list[Compiled]]:
    if plan.alone:
        path = plan.request.recipe.folder / str(plan.request.recipe.model.onnx)
        stages = [each.stage for each in planned.stages]
        return files_of(path, planned.target, stages, plan.data, plan.calibration, plan.store)
    return _baseline(plan, planned), compile_candidate(plan, planned, staged, progress)


def _published(each: Compiled, folder: Path, name: str = "") -> Compiled:
    artifact = publish_artifact(each.artifact, folder, name)
    return Compiled(artifact, each.reference, is_baseline=bool(name))


def _baseline(plan: Plan, planned: PlannedTarget) -> Compiled | None:
    """The trained model itself, compiled by the target's first backend; None for a black box."""
    module = plan.original.module
    first = next(iter(planned.backends))
    if module is None or plan.data.train.paired is not None or not plan.request.baseline:
        return None
    candidate = Candidate(module, plan.start.example)
    key = key_of("baseline", plan.original.key, start_key(plan))
    return compiled(plan, planned.target, first, planned.backends[first], candidate, key)[0]


def _original(plan: Plan) -> Original:
    """The trained model's outputs on the test set, kept by content."""
    test = plan.data.test
    key = key_of(code_key(), torch.__version__, plan.original.key, plan.data.sha256)
    found = plan.store.find("original", key)
    if found is None:
        with torch.no_grad():
            parts = [plan.original.logits(x) for x in torch.split(test.shown, 500)]
        outputs = torch.cat(parts).numpy()
        found = plan.store.publish(
            "original", key, lambda folder: np.save(folder / "outputs.npy", outputs)
        )
    return Original(np.load(found / "outputs.npy"), test.y.numpy(), plan.data.task)


def _verdict(targets: Sequence[TargetReport]) -> Any:
    artifacts = [artifact for target in targets for artifact in target.artifacts]
    return run_verdict(
        [budget for artifact in artifacts for budget in artifact.budgets],
        [artifact.parity for artifact in artifacts if artifact.parity],
    )


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


def _teacher(plan: Plan, original: Original) -> TeacherReport:
    accuracy = accuracy_measurement(original.scores, "host", metric=original.task.metric)
    module = plan.original.module
    if module is None:
        reason = "a black box: its parameters can't be counted"
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


def _layers(plan: Plan, staged: Staged) -> Layers:
    """The trained model's layers, and those of the last candidate that still has modules."""

    if plan.alone:
        return Layers()

    def costs(module: torch.nn.Module, example: torch.Tensor) -> tuple[LayerCost, ...]:
        return tuple(
            LayerCost(name=each.name, kind=each.kind, parameters=each.parameters, macs=each.macs)
            for each in layer_costs(module, example)
            if each.parameters or each.macs
        )

    example, shown = plan.start.example, plan.data.shown
    original = plan.original.module
    return Layers(
        before=costs(plan.start.module, example) if original is None else costs(original, shown),
        after=costs(staged.floating.module, example),
    )


def resolved_recipe(request: Request) -> str:
    """The recipe as it ran, every default written out; its paths start from the output folder."""
    recipe = request.resolved
    table = recipe.model_dump(mode="json", exclude_none=True)

    for _, of, key in named_files(table):
        of[key] = os.path.relpath(recipe.folder / of[key], request.out)
    return tomli_w.dumps(table)
