"""What will happen for one target: its stages, backends and budgets."""

from collections.abc import Sequence

from edgekd.backends import Backend
from edgekd.errors import Collector
from edgekd.installed import tool_versions
from edgekd.measure.budgets import merge_budgets
from edgekd.registry import BACKENDS
from edgekd.run.plan.checks import check_target
from edgekd.run.plan.keys import stage_key, start_key
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget, Request
from edgekd.stages import Stage
from edgekd.store import key_of
from edgekd.values.progress import silent
from edgekd.values.target import Target, hard_limits

PASSED = "plan"
"""What the store calls the checks that were passed: they export the network several times."""


def planned_target(
    plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
) -> PlannedTarget:
    """One target's part of a network's plan; what the same plan passed is not checked again."""
    context = plan.context(target, plan.request.out / "stages" / "unfinished", silent)
    key, planned = start_key(plan), []
    for stage in stages:
        content = collect.attempt(stage.content, plan.request.recipe.folder)
        key = stage_key(key, stage, target, content or "")
        cached = plan.store.find(stage.kind, key) is not None
        planned.append(PlannedStage(stage.kind, stage, key, stage.cost(context), cached))
    backends = _backends(target, stages, collect)
    key = key_of(key, target.model_dump(mode="json"), list(backends), tool_versions())
    if plan.store.find(PASSED, key) is None:
        check_target(plan, target, context, stages, backends, collect)
    return PlannedTarget(target, tuple(planned), backends, budgets_of(plan.request, target), key)


def _backends(target: Target, stages: Sequence[Stage], collect: Collector) -> dict[str, Backend]:
    """The target's, and those that a stage asks for besides."""
    backends = {}
    asked = [name for stage in stages for name in getattr(stage, "followers", ())]
    for name in dict.fromkeys([*target.backends, *asked]):
        where = f"target {target.name}: backends.{name}"
        entry = collect.attempt(BACKENDS.get, name, where)
        if entry is not None:
            backend: Backend = entry.make()
            collect.faults.extend(backend.missing())
            backends[name] = backend
    return backends


def budgets_of(request: Request, target: Target) -> dict[str, float]:
    """Merged budgets; flash and memory of a microcontroller are budgets even if nobody asks."""
    return merge_budgets(hard_limits(target), target.budgets, request.resolved.budgets)


def keep_plan(plan: Plan) -> None:
    """Remember that the checks of each target were passed, for a run of the same."""
    for planned in plan.targets:
        if planned.key and plan.store.find(PASSED, planned.key) is None:
            plan.store.publish(PASSED, planned.key, lambda folder: None)
