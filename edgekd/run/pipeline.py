"""Runs a plan's stages and compilers, each step kept by content.

A step whose key is already in the store is read back instead of run, so a second run of the same
recipe does nothing again, and one that was killed goes on where it stopped.
"""

import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import fx, nn

from edgekd.backends import Backend, Board
from edgekd.devices.opening import open_device
from edgekd.installed import tools_here
from edgekd.measure.accuracy import accuracy_measurement, scores_of
from edgekd.network.cost import totals
from edgekd.network.evaluation import predict
from edgekd.network.load import load_network
from edgekd.network.storage import load_module, save_module
from edgekd.report.values import StageReport
from edgekd.run.compiled import Compiled, kept
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget
from edgekd.stages import Progress
from edgekd.store import disk_errors, key_of
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import licence_text, recipe_hash
from edgekd.values.target import Target

FORMS = ("float", "fp16", "int8")
"""What a backend takes that does not say otherwise in its `forms`."""

GRAPHS = ("int8", "weights")


@dataclass(frozen=True)
class Staged:
    """What the stages of one target led to; `floating` is the last candidate with float weights."""

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
        if candidate.form in ("float", "fp16"):
            floating, floating_key = candidate, key
    return Staged(candidate, floating, key, floating_key, tuple(reports))


def run_stage(
    plan: Plan, target: Target, planned: PlannedStage, candidate: Candidate, progress: Progress
) -> tuple[Candidate, StageReport]:
    """One stage: from the store if it was done before, else run and published."""
    found = plan.store.find(planned.kind, planned.key)
    if found:
        restored = _load_candidate(plan, found)
        report = StageReport.model_validate_json((found / "report.json").read_text())
        return restored, report.model_copy(update={"cached": True})
    work = plan.store.work(planned.kind, planned.key)
    started = time.perf_counter()
    with disk_errors(work):
        result = planned.stage.run(candidate, plan.context(target, work, progress))
        outputs = predict(result.module, plan.data.test.x)
    seconds = time.perf_counter() - started
    task, cost = plan.data.task, totals(result.module, result.example)
    scores = scores_of(outputs.numpy(), plan.data.test.y.numpy(), planned.kind, task)
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
    )

    def write(folder: Path) -> None:
        _save_candidate(result, folder)
        (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n")

    plan.store.publish(planned.kind, planned.key, write)
    return result, report


def weight_bytes(candidate: Candidate) -> int:
    """Bytes of all parameters and buffers as files hold them: half for fp16, packed codes."""
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
    about = {"form": candidate.form, "lineage": candidate.lineage}
    (folder / "candidate.json").write_text(json.dumps(about, indent=1) + "\n")


def _load_candidate(plan: Plan, folder: Path) -> Candidate:
    """What a stage left; its module is read when it is needed, which a later stage may spare."""
    about = json.loads((folder / "candidate.json").read_text())

    @functools.cache
    def module() -> nn.Module:
        if about["form"] in GRAPHS:
            from edgekd.quant.storage import load_graph

            return load_graph(folder / "graph.pt2")
        skeleton = load_network(plan.start_network, plan.request.recipe.folder, "student")
        return load_module(skeleton, folder)

    return Candidate(module, plan.start.example, about["form"], tuple(about["lineage"]))


def compile_candidate(
    plan: Plan, planned: PlannedTarget, staged: Staged, progress: Progress
) -> list[Compiled]:
    """Every backend of the target, each from the candidate that it can take, cached by content."""
    made: list[Compiled] = []
    last = staged.reports[-1].accuracy if staged.reports else None
    candidate = replace(staged.candidate, metadata=metadata_of(plan, last))
    floating = replace(staged.floating, metadata=metadata_of(plan, None))
    for number, (name, backend) in enumerate(planned.backends.items()):
        progress(f"compile for {planned.target.name} with {name}", number, len(planned.backends))
        follows = getattr(backend, "follows", "")
        if follows:
            made = _with_follower(plan, planned.target, name, backend, made)
        elif candidate.form in getattr(backend, "forms", FORMS):
            made += compiled(plan, planned.target, name, backend, candidate, staged.key)
        else:
            made += compiled(plan, planned.target, name, backend, floating, staged.floating_key)
    progress(f"compile for {planned.target.name} with {name}", 1, 1)
    return made


def metadata_of(plan: Plan, accuracy: float | None) -> dict[str, Any]:
    """What the deployed file says of the model; `accuracy` (0 to 1) is the candidate's own, on the
    test set. What is not known is left out."""
    recipe = plan.request.recipe
    told = {
        "name": recipe.metadata.name,
        "version": recipe.metadata.version,
        "licence": licence_text(recipe),
        "labels": list(recipe.metadata.labels),
        "recipe_hash": recipe_hash(recipe),
        "accuracy_percent": None if accuracy is None else round(100 * accuracy, 4),
    }
    return {name: value for name, value in told.items() if value not in ("", [], None)}


def compiled(
    plan: Plan, target: Target, name: str, backend: Backend, candidate: Candidate, key: str
) -> list[Compiled]:
    """The files that one backend makes of a candidate."""
    artifacts = kept(
        plan.store,
        name,
        key_of(key, name, target.model_dump(mode="json"), dict(candidate.metadata)),
        lambda folder: backend.compile(candidate, target, target.backends[name], folder),
    )
    return [Compiled(artifact, candidate) for artifact in artifacts]


def _with_follower(
    plan: Plan, target: Target, name: str, backend: Any, made: list[Compiled]
) -> list[Compiled]:
    """Add what a follower makes; a file that it could not compile here keeps what it says of it."""
    options: dict[str, Any] = target.backends.get(name, {})
    tools = tools_here(getattr(backend, "tools", ()))
    result: list[Compiled] = []
    with _board(plan.request.device) as (board, has):
        for each in made:
            if each.artifact.format != backend.follows:
                result.append(each)
                continue
            facts = target.model_dump(mode="json")
            key = key_of(each.artifact.sha256, name, facts, tools, has)
            make = functools.partial(backend.follow, each.artifact, target, options, board=board)
            artifacts = kept(plan.store, name, key, make)
            if not artifacts:
                each = _judged(each, name, *backend.check_artifact(each.artifact, target, options))
            result.append(each)
            result += [Compiled(artifact, each.reference) for artifact in artifacts]
    return result


@contextmanager
def _board(url: str | None) -> Iterator[tuple[Board | None, dict[str, str]]]:
    """The board that the user named, to build on, and what it has; nothing on an emulated one."""
    device = open_device(url) if url else None
    try:
        if device is None or device.kind != "measured":
            yield None, {}
        else:
            has = {"device": device.name, **device.hello().runtimes}
            yield Board(device.execute, device.send, device.fetch), has
    finally:
        if device is not None:
            device.close()


def _plain(facts: dict[str, Any]) -> dict[str, float | str]:
    return {name: each if isinstance(each, str) else float(each) for name, each in facts.items()}


def _judged(each: Compiled, name: str, placements: Any, facts: dict[str, Any]) -> Compiled:
    kind = facts.get("kind", "estimated")
    note = f"{name}: its compiler is not here; what it maps is {kind} from the file"
    artifact = each.artifact.model_copy(
        update={
            "placements": placements,
            "facts": {**each.artifact.facts, **_plain(facts)},
            "notes": (*each.artifact.notes, note),
        }
    )
    return Compiled(artifact, each.reference)
