"""Plans one target: its stages, backends and budgets."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgekd.backends import Backend, Follower
from edgekd.errors import Collector, EdgekdError, MissingTool
from edgekd.installed import tool_versions
from edgekd.measure.budgets import merge_budgets
from edgekd.network.identity import structure_key
from edgekd.registry import BACKENDS
from edgekd.run.plan.checks import check_target
from edgekd.run.plan.keys import stage_key, start_key
from edgekd.run.plan.planned import ExpectedFile, Plan, PlannedStage, PlannedTarget, Request
from edgekd.run.plan.rehearsal import rehearse_backends, rehearse_stages
from edgekd.stages import Context, Stage
from edgekd.store import Store, code_key, key_of
from edgekd.values.progress import silent
from edgekd.values.target import Target, hard_limits
from edgekd.values.tree import forms

REHEARSED = "rehearsal"
"""The cache entry for networks that passed the dry run of every stage and backend."""

PASSED = "plan"
"""The store's entry for passed checks, which are slow because they export the network."""


EXPECTED = "expected.json"
"""The file in both entries with what was compiled, and the stages' notes."""

Expected = tuple[tuple[ExpectedFile, ...], tuple[str, ...]]
"""The files that a rehearsal compiled, and what stages will leave as it is."""

Backends = dict[str, Backend | Follower]


def planned_target(
    plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
) -> PlannedTarget:
    """One target's part of a network's plan; checks that the same plan passed are not repeated."""
    context = plan.context(target, plan.request.out / "stages" / "unfinished", silent)
    budgets = budgets_of(plan.request, target)
    stages = [stage.within(budgets) for stage in stages]
    key, planned = start_key(plan), []
    for stage in stages:
        content = collect.attempt(stage.content, plan.request.recipe.folder)
        key = stage_key(key, stage, target, content or "")
        cached = plan.store.find(stage.kind, key) is not None
        planned.append(PlannedStage(stage.kind, stage, key, stage.cost(context), cached))
    made = _backends(target, stages, collect)
    unusable = _missing(made)
    backends = _usable(made, unusable)
    key = key_of(key, target.model_dump(mode="json"), list(backends), tool_versions())
    expected: Expected = ((), ())
    known = _known(plan, plan.store, PASSED, key)
    if known is not None:
        expected = known
    else:
        refused = check_target(plan, target, context, stages, backends, collect)
        if not collect.faults:
            left = {name: each for name, each in backends.items() if name not in refused}
            errors, expected = _rehearsed(plan, target, context, stages, left, collect)
            refused |= errors
        if refused:
            key = ""  # what is not installed now may be next time
        unusable |= refused
        backends = _usable(backends, unusable)
    if not backends:
        collect.faults.extend(unusable.values())
    return PlannedTarget(target, tuple(planned), backends, budgets, key, unusable, *expected)


def _rehearsed(
    plan: Plan,
    target: Target,
    context: Context,
    stages: Sequence[Stage],
    backends: Backends,
    collect: Collector,
) -> tuple[dict[str, EdgekdError], Expected]:
    """The errors of backends that fail on the untrained network, the files of the others, and the
    stages' notes; errors of stages go to `collect`.
    A network of the same structure is not tried again, whatever the output folder.
    """
    key = key_of(
        code_key(),
        tool_versions(),
        structure_key(plan.start.module),
        [*forms(plan.start.example), plan.data.classes, repr(plan.data.task)],
        [stage.rehearsal().model_dump(mode="json") for stage in stages],
        [target.model_dump(mode="json", exclude={"budgets"}), list(backends)],
    )
    store = Store(plan.request.cache or plan.request.out / "stages", plan.request.resume)
    known = _known(plan, store, REHEARSED, key)
    if known is not None:
        return {}, known
    for backend in backends.values():
        if isinstance(backend, Backend):
            backend.prepare()
    rehearsed = rehearse_stages(plan.start, stages, context, collect)
    if rehearsed is None:
        return {}, ((), ())
    errors, files = rehearse_backends(rehearsed, target, backends, plan.request.untrained)
    expected = (files, rehearsed.notes)
    if not errors:
        store.publish(REHEARSED, key, partial(_write_expected, expected))
    return errors, expected


def _known(plan: Plan, store: Store, name: str, key: str) -> Expected | None:
    """What an earlier rehearsal found; None if there was none, or if its files are wanted and not
    there any more."""
    entry = store.find(name, key)
    if entry is None:
        return None
    expected = _read_expected(entry)
    wanted = plan.request.untrained is not None
    lost = wanted and any(file.final and not file.is_kept for file in expected[0])
    return None if lost else expected


def _write_expected(expected: Expected, folder: Path) -> None:
    files, notes = expected
    tables = {"files": [file.model_dump(mode="json") for file in files], "notes": notes}
    (folder / EXPECTED).write_text(json.dumps(tables) + "\n")


def _read_expected(folder: Path) -> Expected:
    """What an earlier rehearsal found."""
    try:
        tables = json.loads((folder / EXPECTED).read_text())
    except (OSError, ValueError):
        return (), ()
    files = tuple(ExpectedFile.model_validate(table) for table in tables["files"])
    return files, tuple(tables["notes"])


def _backends(target: Target, stages: Sequence[Stage], collect: Collector) -> Backends:
    """The target's backends, and those that a stage adds."""
    backends: Backends = {}
    asked = [name for stage in stages for name in getattr(stage, "followers", ())]
    for name in dict.fromkeys([*target.backends, *asked]):
        where = f"target {target.name}: backends.{name}"
        entry = collect.attempt(BACKENDS.get, name, where)
        if entry is not None:
            backends[name] = entry.make()
    return backends


def _missing(backends: Backends) -> dict[str, EdgekdError]:
    """An error for each backend whose packages are not installed."""
    errors: dict[str, EdgekdError] = {}
    for name, backend in backends.items():
        missing = backend.missing()
        if missing:
            message = "; ".join(fault.message for fault in missing)
            hint = "; ".join(dict.fromkeys(fault.hint for fault in missing))
            errors[name] = MissingTool(message, where=f"backends.{name}", hint=hint)
    return errors


def _usable(backends: Backends, unusable: dict[str, EdgekdError]) -> Backends:
    """The usable backends; followers of an unusable backend become unusable as well."""
    for name, backend in backends.items():
        follows = backend.info.follows
        if follows in unusable and name not in unusable:
            unusable[name] = MissingTool(
                f"it starts from the files of '{follows}'",
                where=f"backends.{name}",
                hint=unusable[follows].hint,
            )
    return {name: backend for name, backend in backends.items() if name not in unusable}


def budgets_of(request: Request, target: Target) -> dict[str, float]:
    """Merged budgets; a microcontroller's flash and memory are budgets even if none is set."""
    return merge_budgets(hard_limits(target), target.budgets, request.resolved.budgets)


def keep_plan(plan: Plan) -> None:
    """Record that each target's checks passed, so that a run of the same plan can skip them."""
    for planned in plan.targets:
        if planned.key and plan.store.find(PASSED, planned.key) is None:
            write = partial(_write_expected, (planned.expected, planned.notes))
            plan.store.publish(PASSED, planned.key, write)
