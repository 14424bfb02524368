"""Everything that can be refused is refused here, before any training; then it says what will run.

`make_plan` loads the data, the networks and the teachers, types every stage, and asks stages,
backends and budgets what is wrong. All faults come out together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from edgekd.backends import Backend
from edgekd.budgets import check_budgets, check_hard_limits, merge_budgets
from edgekd.candidate import Candidate
from edgekd.config import parse
from edgekd.cost import largest_layer, totals
from edgekd.data import load_data
from edgekd.data.calibration import calibration_samples
from edgekd.data.samples import Data
from edgekd.devices.opening import lacks, misfit, open_device
from edgekd.diagnostics import Diagnostic, OfNetworks, diagnostics_of
from edgekd.errors import EdgekdError, Faults, InputError, raise_all
from edgekd.networks import load_network, network_key
from edgekd.onnx_alone import check_onnx_alone, is_onnx_alone
from edgekd.recipe import Network, Recipe, licence_text
from edgekd.registry import BACKENDS, STAGES
from edgekd.stages import Context, Progress, Stage
from edgekd.store import Store, check_writable, code_key, key_of
from edgekd.target import Target, fits, hard_limits
from edgekd.teachers import Teacher, load_teacher
from edgekd.versions import installed_versions

R = TypeVar("R")


@dataclass(frozen=True)
class Request:
    """What the command line asked for; budgets of the recipe and of `--budget` are merged.
    `baseline` is whether the uncompressed teacher is compiled and measured beside the files.
    `product` is the format that alone is deployed: of files on the way to it, flash and memory are
    not held against budgets."""

    recipe: Recipe
    targets: tuple[Target, ...]
    out: Path
    device: str | None = None
    accept: tuple[str, ...] = ()
    budgets: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    quick: bool = False
    resume: bool = True
    cache: Path | None = None
    baseline: bool = True
    product: str = ""


@dataclass(frozen=True)
class PlannedStage:
    """One stage on one target: its key, and whether its result is already there."""

    kind: str
    stage: Stage
    key: str
    cost: str
    cached: bool


@dataclass(frozen=True)
class PlannedTarget:
    """What happens for one target, in order; `key` names all that its checks depend on."""

    target: Target
    stages: tuple[PlannedStage, ...]
    backends: dict[str, Backend]
    budgets: dict[str, float]
    key: str = ""


@dataclass(frozen=True)
class Plan:
    """A request that can work. `start` is the candidate that the first stage gets, `original` the
    trained model that everything is compared with; it teaches unless the recipe names others."""

    request: Request
    data: Data
    start: Candidate
    start_network: Network
    original: Teacher
    teachers: tuple[Teacher, ...]
    calibration: torch.Tensor
    targets: tuple[PlannedTarget, ...]
    warnings: tuple[str, ...]
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether this is an ONNX file with no module behind it."""
        return is_onnx_alone(self.request.recipe)

    @property
    def store(self) -> Store:
        """Where finished stages of this output folder are."""
        return Store(self.request.out / "stages")

    def context(self, target: Target, work: Path, progress: Progress) -> Context:
        """What a stage of this plan may use."""
        return Context(
            target=target,
            data=self.data,
            teachers=self.teachers,
            work=work,
            seed=self.request.seed,
            cache=self.request.cache,
            calibration=self.calibration,
            folder=self.request.recipe.folder,
            progress=progress,
        )

    def lines(self) -> list[str]:
        """The plan as a person reads it, a line a step."""
        cost = totals(self.start.module, self.start.example)
        start = f"{cost.parameters:,} parameters, {cost.macs:,} MACs"
        lines = [
            f"data: {self.data.name}, {len(self.data.train):,} to train, "
            f"{len(self.data.validation):,} to choose by, {len(self.data.test):,} to report",
            f"start: {'an ONNX file' if self.alone else start}",
            *(f"teacher: {teacher.name}" for teacher in self.teachers),
        ]
        for planned in self.targets:
            name = planned.target.name
            for number, stage in enumerate(planned.stages, 1):
                state = " (done before, reused)" if stage.cached else ""
                lines.append(f"{name}: {number}. {stage.kind}: {stage.cost}{state}")
            compilers = ", ".join(planned.backends) or "nothing: it is a file already"
            lines.append(f"{name}: compile with {compilers}, then measure")
            for metric, limit in planned.budgets.items():
                lines.append(f"{name}: budget {metric} <= {limit:g}")
        return [*lines, *(f"note: {warning}" for warning in self.warnings)]


class BlackBox(nn.Module):
    """A teacher as a module, for what only calls one."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.teacher.logits(x)


class _Collector:
    """Runs checks and keeps what they complain of."""

    def __init__(self) -> None:
        self.faults: list[EdgekdError] = []

    def attempt(self, check: Callable[..., R], *arguments: Any) -> R | None:
        try:
            return check(*arguments)
        except Faults as error:
            self.faults.extend(error.faults)
        except InputError as error:
            self.faults.append(error)
        return None


def make_plan(request: Request) -> Plan:
    """The plan of a request, or every fault in it at once."""
    recipe, collect = request.recipe, _Collector()
    collect.attempt(check_writable, request.out)
    told = collect.attempt(_check_device, request)
    data = collect.attempt(load_data, recipe.data, recipe.folder)
    stages = [
        collect.attempt(typed_stage, number, table) for number, table in enumerate(recipe.stages, 1)
    ]
    _check_order([stage for stage in stages if stage], collect)
    for target in request.targets:
        budgets = _budgets(request, target)
        collect.faults.extend(check_budgets(budgets, "budgets"))
        collect.faults.extend(check_hard_limits(budgets, hard_limits(target), target.name))
    collect.attempt(licence_text, recipe)
    if data:
        collect.attempt(_check_labels, recipe, data)
    start_network = recipe.student or recipe.model
    start = None
    if data and not is_onnx_alone(recipe):
        start = collect.attempt(_start, start_network, recipe, data, request.seed)
    original, *teachers = [
        collect.attempt(_teacher, network, recipe, data, where, request.seed) if data else None
        for network, where in _teacher_networks(recipe)
    ]
    raise_all(collect.faults)
    assert data is not None
    assert original is not None
    if is_onnx_alone(recipe):
        start = Candidate(BlackBox(original), data.example)
    assert start is not None
    asked, faults = diagnostics_of(recipe.report.diagnostics, data, "report.diagnostics")
    collect.faults.extend(faults)
    collect.faults.extend(_without_network(recipe, asked))
    calibration = collect.attempt(calibration_samples, recipe.calibration, data, request.seed)
    raise_all(collect.faults)
    assert calibration is not None
    plan = Plan(
        request,
        data,
        start,
        start_network,
        original,
        tuple(teacher for teacher in teachers if teacher) or (original,),
        calibration,
        (),
        (),
        asked,
    )
    planned = [
        _planned_target(plan, target, [stage for stage in stages if stage], collect)
        for target in request.targets
    ]
    raise_all(_once(collect.faults))
    return Plan(
        **{**vars(plan), "targets": tuple(planned), "warnings": (*_warnings(plan), *(told or ()))}
    )


def _without_network(recipe: Recipe, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
    """Diagnostics that look into networks, where there is nothing but a file."""
    if not is_onnx_alone(recipe):
        return []
    return [
        InputError(
            f"'{name}' looks into a network, and an ONNX file alone is none",
            where="report.diagnostics",
        )
        for name, diagnostic in asked.items()
        if isinstance(diagnostic, OfNetworks)
    ]


def _check_labels(recipe: Recipe, data: Data) -> None:
    labels = recipe.metadata.labels
    if labels and len(labels) != data.classes:
        raise InputError(
            f"{len(labels)} labels for {data.classes} classes",
            where="metadata.labels",
            allowed="one for each class, in the order of the outputs",
        )


def _check_device(request: Request) -> tuple[str, ...]:
    """Whether there is such a device, it answers, and it is what the targets say; what it lacks is
    told. An emulator is not started for that. Raises `ToolError` for a board that fails."""
    if request.device is None:
        return ()
    device = open_device(request.device)
    try:
        if device.kind != "measured":
            return ()
        raise_all([fault for each in request.targets if (fault := misfit(device, each))])
        return tuple(lack for each in request.targets for lack in lacks(device, each))
    finally:
        device.close()


def _teacher(network: Network, recipe: Recipe, data: Data, where: str, seed: int) -> Teacher:
    with _seeded(seed):  # one without weights is the same in every run
        return load_teacher(network, recipe.folder, data, where)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed, and the generator as it was afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _teacher_networks(recipe: Recipe) -> list[tuple[Network, str]]:
    others = [(each, f"teachers.{n}") for n, each in enumerate(recipe.teachers, 1)]
    return [(recipe.model, "model"), *others]


def typed_stage(number: int, table: dict[str, Any]) -> Stage:
    """The stage that a recipe's table asks for, every key checked."""
    where = f"stages.{number}"
    if "kind" not in table:
        raise InputError("a stage without 'kind'", where=where, allowed=", ".join(STAGES.names()))
    entry = STAGES.get(str(table["kind"]), f"{where}.kind")
    stage: Stage = parse(entry.make, table, f"{where} ({entry.name})")  # type: ignore[arg-type]
    return stage


def _check_order(stages: Sequence[Stage], collect: _Collector) -> None:
    for number, stage in enumerate(stages, 1):
        if stage.kind in LAST and number < len(stages):
            after = stages[number].kind
            collect.faults.append(
                InputError(
                    f"'{after}' after '{stage.kind}': {LAST[stage.kind]} can't be changed any more",
                    where=f"stages.{number + 1}",
                    allowed=f"{stage.kind} as the last stage",
                    hint=f"move the {stage.kind} stage to the end; it can train by itself",
                )
            )
            return


LAST = {"quantize": "a quantized model", "cluster": "a model with shared weights"}
"""The stages that nothing can follow, and what they leave."""


def _start(network: Network, recipe: Recipe, data: Data, seed: int) -> Candidate:
    where = "student" if recipe.student else "model"
    if network.source not in ("factory", "program"):
        raise InputError(
            f"a black box ({network.source}) can teach, but can't be trained or compiled",
            where=where,
            allowed="factory or program",
            hint="give [student] a factory, or compress an ONNX file alone: "
            "[model] onnx = ... with one quantize stage, method = 'calibrate'",
        )
    with _seeded(seed):  # a student without weights starts from the seed's
        module = load_network(network, recipe.folder, where).eval()
    _check_outputs(module, data, where)
    return Candidate(module, data.example)


def _check_outputs(module: nn.Module, data: Data, where: str) -> None:
    example = data.example
    try:
        with torch.no_grad():
            logits = module(example)
    except Exception as error:  # whatever the user's own forward raises
        first = str(error).split("\n")[0]
        raise InputError(
            f"the network fails on a sample of shape {tuple(example.shape)}: {first}",
            where=where,
            hint=f"does it take the inputs of '{data.name}'?",
        ) from None
    fault = data.task.output_fault(logits, data.train.y[:1], data.classes, where)
    if fault is not None:
        raise fault


def _planned_target(
    plan: Plan, target: Target, stages: Sequence[Stage], collect: _Collector
) -> PlannedTarget:
    if plan.alone:
        collect.faults.extend(check_onnx_alone(stages, [target]))
        cost = f"calibrate the file on {len(plan.calibration)} samples"
        alone = tuple(PlannedStage(stage.kind, stage, "", cost, False) for stage in stages)
        return PlannedTarget(target, alone, {}, _budgets(plan.request, target))
    context = plan.context(target, plan.request.out / "stages" / "unfinished", lambda *_: None)
    key, planned = start_key(plan), []
    for stage in stages:
        content = collect.attempt(stage.content, plan.request.recipe.folder)
        key = stage_key(key, stage, target, content or "")
        cached = plan.request.resume and plan.store.find(stage.kind, key) is not None
        planned.append(PlannedStage(stage.kind, stage, key, stage.cost(context), cached))
    backends = _backends(target, stages, collect)
    key = key_of(key, target.model_dump(mode="json"), list(backends), installed_versions())
    if not plan.request.resume or plan.store.find(PASSED, key) is None:
        _check(plan, target, context, stages, backends, collect)
    return PlannedTarget(target, tuple(planned), backends, _budgets(plan.request, target), key)


PASSED = "plan"
"""What the store calls the checks that were passed: they export the network several times."""


def keep_plan(plan: Plan) -> None:
    """Remember that the checks of each target were passed, for a run of the same."""
    for planned in plan.targets:
        if planned.key and plan.store.find(PASSED, planned.key) is None:
            plan.store.publish(PASSED, planned.key, lambda folder: None)


def _check(
    plan: Plan,
    target: Target,
    context: Context,
    stages: Sequence[Stage],
    backends: Mapping[str, Backend],
    collect: _Collector,
) -> None:
    """Ask stages and backends what is wrong."""
    for number, stage in enumerate(stages, 1):
        where = f"stages.{number} ({stage.kind})"
        collect.faults.extend(collect.attempt(stage.check, plan.start, context, where) or [])
    for name, backend in backends.items():
        if not backend.missing() and not getattr(backend, "follows", ""):
            collect.attempt(backend.check, plan.start, target, target.backends.get(name, {}))
    _check_precision(target, stages, collect)
    _check_fit(plan, target, collect)


def _backends(target: Target, stages: Sequence[Stage], collect: _Collector) -> dict[str, Backend]:
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


INT8_ONLY = {"edgetpu": "the Edge TPU", "vela": "the Ethos-U", "c": "generated C"}


def _check_precision(target: Target, stages: Sequence[Stage], collect: _Collector) -> None:
    """Some accelerators run int8 and nothing else, so a recipe for them has to end in int8."""
    if any(
        stage.kind == "quantize" and stage.model_dump().get("dtype") == "int8"  # type: ignore[attr-defined]
        for stage in stages
    ):
        return
    collect.faults.extend(
        InputError(
            f"{title} runs int8 only, and no stage quantizes to it",
            where=f"target {target.name}: backends.{name}",
            hint='add a stage with kind = "quantize", dtype = "int8"',
        )
        for name, title in INT8_ONLY.items()
        if name in target.backends
    )


def _check_fit(plan: Plan, target: Target, collect: _Collector) -> None:
    """Refuse what can't fit even at a byte a value; a model that the stages shrink is judged by
    its budgets afterwards."""
    total = totals(plan.start.module, plan.start.example)
    shrinks = any(
        table.get("kind") in ("prune", "factorize") for table in plan.request.recipe.stages
    )
    in_place = target.hardware.executes_in_place
    floor = largest_layer(plan.start.module, plan.start.example) if in_place else 0
    reason = fits(target, parameter_bytes=total.parameters, activation_bytes=floor)
    if reason and not (in_place and shrinks):
        collect.faults.append(
            InputError(
                reason,
                where=f"target {target.name}",
                hint='take a smaller student, or add a stage with kind = "prune"',
            )
        )


def _budgets(request: Request, target: Target) -> dict[str, float]:
    """Merged budgets; flash and memory of a microcontroller are budgets even if nobody asks."""
    return merge_budgets(
        hard_limits(target), target.budgets, request.recipe.budgets, request.budgets
    )


def start_key(plan: Plan) -> str:
    """Of all that the first stage starts from: model, teachers, data, calibration, code, seed."""
    recipe = plan.request.recipe
    return key_of(
        code_key(),
        torch.__version__,
        plan.request.seed,
        network_key(plan.start_network, recipe.folder),
        [(teacher.key, teacher.weight) for teacher in plan.teachers],
        plan.data.sha256,
        recipe.calibration.model_dump(),
    )


def stage_key(previous: str, stage: Stage, target: Target, content: str = "") -> str:
    """Of what came before, the stage's own table with what the files in it hold, and the target's
    facts that it reads."""
    facts = target.model_dump(mode="json", include=set(stage.target_facts))
    table = stage.model_dump(mode="json")  # type: ignore[attr-defined]
    return key_of(previous, table, facts, *([content] if content else []))


def _warnings(plan: Plan) -> tuple[str, ...]:
    shared = set()
    if plan.request.quick:
        shared.add("--quick: short measurements, stamped so in the report")
    return tuple(sorted(shared))


def _once(faults: list[EdgekdError]) -> list[EdgekdError]:
    """Several targets may find the same fault in the same stage."""
    seen: dict[str, EdgekdError] = {}
    for fault in faults:
        seen.setdefault(str(fault), fault)
    return list(seen.values())
