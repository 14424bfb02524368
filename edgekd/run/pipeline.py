"""Runs a plan's stages and caches each result by content. A step whose key is already in the store
is loaded instead of run, so a second run of the same recipe repeats nothing, and an interrupted run
resumes where it stopped.
"""

import functools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import fx, nn

from edgekd.measure.accuracy import accuracy_measurement, scores_of
from edgekd.network.cost import totals
from edgekd.network.evaluation import predict
from edgekd.network.storage import load_module, save_module
from edgekd.report.values import StageReport
from edgekd.run.layer_timing import layer_timer
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget
from edgekd.run.plan.start import start_module
from edgekd.stages import Progress
from edgekd.store import disk_errors
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target

GRAPHS = ("int8", "weights")


@dataclass(frozen=True)
class Staged:
    """The result of one target's stages; `floating` is the last candidate with float weights."""

    candidate: Candidate
    floating: Candidate
    key: str
    floating_key: str
    reports: tuple[StageReport, ...]


def run_stages(plan: Plan, planned: PlannedTarget, progress: Progress, key: str) -> Staged:
    """Take the start candidate through every stage of one target."""
    candidate = floating = plan.start
    floating_key, reports = key, []
    for planned_stage in planned.stages:
        candidate, report = run_stage(plan, planned.target, planned_stage, candidate, progress)
        key = planned_stage.key
        reports.append(report)
        if candidate.is_floating:
            floating, floating_key = candidate, key
    return Staged(candidate, floating, key, floating_key, tuple(reports))


def run_stage(
    plan: Plan, target: Target, planned: PlannedStage, candidate: Candidate, progress: Progress
) -> tuple[Candidate, StageReport]:
    """One stage: loaded from the store if it was run before, otherwise run and published. Of
    several processes that share a store, one runs it and the others wait."""
    stored = plan.store.find(planned.kind, planned.key)
    if stored is None:
        with plan.store.taken(planned.kind, planned.key):
            stored = plan.store.find(planned.kind, planned.key)
            if stored is None:
                return _run_stage(plan, target, planned, candidate, progress)
    report = StageReport.model_validate_json((stored / "report.json").read_text())
    return load_candidate(plan, stored), report.model_copy(update={"cached": True})


def _run_stage(
    plan: Plan, target: Target, planned: PlannedStage, candidate: Candidate, progress: Progress
) -> tuple[Candidate, StageReport]:
    work = plan.store.work(planned.kind, planned.key)
    started = time.perf_counter()
    with disk_errors(work):
        context = plan.context(target, work, progress)
        timed = replace(context, time_layers=layer_timer(plan, target))
        result = planned.stage.run(candidate, timed)
        outputs = predict(result.module, plan.data.test)
    seconds = time.perf_counter() - started
    task, cost = plan.data.task, totals(result.module, result.example)
    main = task.main(outputs)
    scores = scores_of(main, plan.data.test.y.numpy(), planned.kind, task)
    accuracy = accuracy_measurement(scores, "host", metric=task.metric)
    report = StageReport(
        kind=planned.kind,
        cached=False,
        seconds=round(seconds, 2),
        accuracy=accuracy.value,
        accuracy_ci=accuracy.ci,
        parameters=cost.parameters,
        macs=cost.macs,
        bytes=weight_bytes(result),
        line=result.lineage[-1] if result.lineage else "",
        key=planned.key,
        notes=result.notes,
    )

    def write(folder: Path) -> None:
        _save_candidate(result, folder)
        (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n")

    plan.store.publish(planned.kind, planned.key, write)
    return result, report


def weight_bytes(candidate: Candidate) -> int:
    """The size of all parameters and buffers as stored in files: half for fp16, packed codes."""
    if candidate.form == "weights":
        from edgekd.quant.weight_only import stored_bytes

        return stored_bytes(cast(fx.GraphModule, candidate.module))
    tensors = [*candidate.module.parameters(), *candidate.module.buffers()]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return total // 2 if candidate.form == "fp16" else total


def _save_candidate(candidate: Candidate, folder: Path) -> None:
    if candidate.form in GRAPHS:
        from edgekd.quant.storage import save_graph

        save_graph(candidate.module, folder / "graph.pt2")
    else:
        save_module(candidate.module, folder)
    about = {
        "form": candidate.form,
        "lineage": candidate.lineage,
        "integers_only": candidate.integers_only,
        "also": candidate.also,
    }
    (folder / "candidate.json").write_text(json.dumps(about, indent=1) + "\n")


def load_candidate(plan: Plan, folder: Path) -> Candidate:
    """A stage's stored result; its module is loaded only when something needs it."""
    about = json.loads((folder / "candidate.json").read_text())

    @functools.cache
    def module() -> nn.Module:
        if about["form"] in GRAPHS:
            from edgekd.quant.storage import load_graph

            return load_graph(folder / "graph.pt2")
        skeleton = start_module(plan.start_network, plan.request.recipe, plan.data)
        return load_module(skeleton, folder)

    start, lineage = plan.start, tuple(about["lineage"])
    return Candidate(
        module,
        start.example,
        about["form"],
        lineage,
        open=start.open,
        integers_only=about.get("integers_only", False),
        also=tuple(about.get("also", ())),
    )
