"""Checks of the recipe, the device, stages and backends, made before any training."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.backends import Backend, Follower
from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.devices.opening import (
    arch_mismatch,
    missing_runtimes,
    not_of_its_kind,
    open_device,
)
from edgekd.errors import (
    Collector,
    EdgekdError,
    InputError,
    MissingPackage,
    MissingTool,
    ToolError,
    nearest,
    raise_all,
)
from edgekd.measure.budgets import KNOWN, task_budgets
from edgekd.network.cost import largest_layer, totals
from edgekd.registry import BACKENDS, STAGES
from edgekd.run.plan.planned import Plan, Request
from edgekd.stages import Context, Stage, TrainingStage
from edgekd.values.backend_lookup import backend_info
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Recipe
from edgekd.values.tables import parse_entry
from edgekd.values.target import Target, fits
from edgekd.values.tree import leaves

LAST = {
    "quantize": "a quantized model",
    "cluster": "a model with shared weights",
    "shrink": "a model with weights in few bits",
}
"""The stages that must come last, and the kind of model that each one produces."""


def typed_stage(number: int, table: dict[str, Any]) -> Stage:
    """The stage that a recipe's table describes, with every key checked."""
    where = f"stages.{number}"
    if "kind" not in table:
        raise InputError("a stage without 'kind'", where=where, allowed=", ".join(STAGES.names()))
    entry = STAGES.get(str(table["kind"]), f"{where}.kind")
    return parse_entry(entry, Stage, table, f"{where} ({entry.name})")


def check_order(stages: Sequence[Stage], collect: Collector) -> None:
    """Reject a stage that comes after one whose result can't be changed."""
    for number, stage in enumerate(stages, 1):
        if stage.kind in LAST and number < len(stages):
            after = stages[number].kind
            collect.faults.append(
                InputError(
                    f"'{after}' after '{stage.kind}': {LAST[stage.kind]} can't be changed further",
                    where=f"stages.{number + 1}",
                    allowed=f"{stage.kind} as the last stage",
                    hint=f"move the {stage.kind} stage to the end; it can train on its own",
                )
            )
            return


def check_delivery(recipe: Recipe, targets: Sequence[Target]) -> None:
    """Reject a delivery that a target has no backend for."""
    if isinstance(recipe.deliver, str):
        return
    for target in targets:
        if not set(recipe.deliver) & set(target.backends):
            raise InputError(
                f"{target.name} has none of these backends: {', '.join(recipe.deliver)}",
                where="deliver",
                allowed=f"'recommended', 'all', or a list of {', '.join(target.backends)}",
            )


def check_labels(recipe: Recipe, data: Data) -> None:
    """Reject labels whose number differs from the data's number of classes."""
    labels = recipe.metadata.labels
    if labels and len(labels) != data.classes:
        raise InputError(
            f"{len(labels)} labels for {data.classes} classes",
            where="metadata.labels",
            allowed="one per class, in the order of the outputs",
        )


def metric_faults(request: Request, task: Task) -> list[EdgekdError]:
    """A fault for each budget that is a metric of other tasks."""
    tables = {
        "budgets": request.recipe.budgets,
        "--budget": request.budgets,
        **{f"target {target.name}: budgets": target.budgets for target in request.targets},
    }
    measured = task.measured()
    return [
        InputError(
            f"the task {task.name} does not measure '{name}'",
            where=f"{where} {name}",
            allowed=", ".join(("accuracy", "accuracy_drop", *measured)),
            hint=nearest(name, measured),
        )
        for where, table in tables.items()
        for name in table
        if name not in KNOWN and name in task_budgets() and name not in measured
    ]


def check_device(request: Request) -> tuple[str, ...]:
    """Check that the device exists, responds and matches the targets; missing runtimes become
    warnings. An emulator is not started for this. Raises `ToolError` for a board that fails."""
    if request.device is None:
        return ()
    device = open_device(request.device)
    try:
        if device.kind != "measured":
            return ()
        raise_all([fault for each in request.targets if (fault := arch_mismatch(device, each))])
        return tuple(lack for each in request.targets for lack in missing_runtimes(device, each))
    finally:
        device.close()


def check_target(
    plan: Plan,
    target: Target,
    context: Context,
    stages: Sequence[Stage],
    backends: Mapping[str, Backend | Follower],
    collect: Collector,
) -> dict[str, EdgekdError]:
    """Collect the faults of stages and backends; returns the errors of backends that can't be
    used because something is not installed."""
    unusable: dict[str, EdgekdError] = {}
    for number, stage in enumerate(stages, 1):
        where = f"stages.{number} ({stage.kind})"
        _check_sharding(stage, where, collect)
        collect.faults.extend(collect.attempt(stage.check, plan.start, context, where) or [])
    for name, backend in backends.items():
        if not isinstance(backend, Backend):
            continue
        try:
            backend.check(plan.start, target, target.backends.get(name, {}))
        except (MissingPackage, MissingTool, ToolError) as error:
            unusable[name] = error
        except InputError as error:
            collect.faults.extend(error.faults)
    _check_precision(target, stages, collect)
    check_comparable(plan.request, target, stages, collect)
    check_fit(plan, target, collect)
    _check_sizes(plan, target, backends, collect)
    _check_boxes(plan, target, stages, backends, collect)
    return unusable


def _check_sharding(stage: Stage, where: str, collect: Collector) -> None:
    """Only plain distillation divides its networks: other stages read or change them whole."""
    if not isinstance(stage, TrainingStage) or stage.teaching.shard is None:
        return
    scheme = str(getattr(stage, "name", ""))  # of a distillation
    if scheme == "offline":
        return
    by = f"the scheme '{scheme}'" if scheme else f"the stage '{stage.kind}'"
    collect.faults.append(
        InputError(
            f"{by} can't divide its networks over processes",
            where=f"{where}: shard",
            allowed='kind = "distill" with scheme = "offline"',
            hint="leave out shard: the processes still share each batch",
        )
    )


def _check_boxes(
    plan: Plan,
    target: Target,
    stages: Sequence[Stage],
    backends: Mapping[str, Backend | Follower],
    collect: Collector,
) -> None:
    """What can't search for boxes in its files is refused where the recipe asks for it."""
    if plan.data.task.search is None:
        return
    if "auto" in _quantized_to(stages):
        collect.faults.append(
            InputError(
                "boxes_in_file needs one precision, and auto compares several",
                where=f"target {target.name}: quantize.dtype",
                hint='write dtype = "int8", or leave out boxes_in_file while you compare',
            )
        )
    able = [name for name in BACKENDS.names() if backend_info(name).finds_boxes]
    for name, backend in backends.items():
        if not backend.info.finds_boxes:
            collect.faults.append(
                InputError(
                    f"{backend.info.title} can't put non-maximum suppression into its files",
                    where=f"target {target.name}: backends.{name}",
                    allowed=f"{', '.join(able)} with boxes_in_file",
                    hint="decode boxes outside of the file: leave out boxes_in_file; or "
                    + " ".join(f"--backend {each}" for each in able),
                )
            )


def _check_sizes(
    plan: Plan, target: Target, backends: Mapping[str, Backend | Follower], collect: Collector
) -> None:
    """A backend that builds for one size can't start from a file that leaves it open."""
    if not plan.start.open:
        return
    for name, backend in backends.items():
        source = backends.get(backend.info.follows)
        if source is not None and source.info.leaves_open and not backend.info.leaves_open:
            collect.faults.append(
                InputError(
                    f"{backend.info.title} builds for one size, and the files of "
                    f"'{backend.info.follows}' would leave {plan.start.open[0].name} open",
                    where=f"target {target.name}: backends.{name}",
                    hint="leave out [[dynamic]], or choose other backends with --backend",
                )
            )


def _check_precision(target: Target, stages: Sequence[Stage], collect: Collector) -> None:
    """Some accelerators run int8 only, so a recipe for them has to end in int8."""
    if set(_quantized_to(stages)) & {"int8", "auto"}:
        return
    infos = {name: backend_info(name) for name in target.backends}
    collect.faults.extend(
        InputError(
            f"{info.title} runs int8 only, and no stage quantizes to it",
            where=f"target {target.name}: backends.{name}",
            hint='add a stage with kind = "quantize", dtype = "int8"',
        )
        for name, info in infos.items()
        if info.int8_only
    )


def check_comparable(
    request: Request, target: Target, stages: Sequence[Stage], collect: Collector
) -> None:
    """Refuse to compare precisions where nothing tells the latencies by which they are."""
    if "auto" not in _quantized_to(stages) or request.device or "estimated" in request.accept:
        return
    reason = not_of_its_kind(target)
    if reason:
        collect.faults.append(
            InputError(
                f"auto compares latencies, and nothing here measures any for {target.name}: "
                f"{reason}",
                where=f"target {target.name}: quantize.dtype",
                hint="give the board with --device, let an estimate decide with --accept "
                'estimated, or write dtype = "int8"',
            )
        )


def _quantized_to(stages: Sequence[Stage]) -> list[str]:
    """The types that the stages quantize to."""
    tables = [stage.model_dump() for stage in stages if stage.kind == "quantize"]
    return [str(table.get("dtype")) for table in tables]


def _least_values(start: Candidate, target: Target) -> int:
    """How many values are in memory at once at least: the input, and all of a layer where no
    backend computes layers in patches."""
    if any(backend_info(name).in_patches for name in target.backends):
        return sum(one[:1].numel() for one in leaves(start.example))
    return largest_layer(start.module, start.example)


def check_fit(plan: Plan, target: Target, collect: Collector) -> None:
    """Reject a model that can't fit even at one byte per value. A model that the stages shrink
    is checked against its budgets afterwards."""
    total = totals(plan.start.module, plan.start.example)
    shrinks = any(
        table.get("kind") in ("prune", "factorize") for table in plan.request.recipe.stages
    )
    in_place = target.hardware.executes_in_place
    floor = _least_values(plan.start, target) if in_place else 0
    reason = fits(target, parameter_bytes=total.parameters, activation_bytes=floor)
    if reason and not (in_place and shrinks):
        collect.faults.append(
            InputError(
                reason,
                where=f"target {target.name}",
                hint='take a smaller student, or add a stage with kind = "prune"',
            )
        )
