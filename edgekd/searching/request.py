"""What a search was asked for, checked before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from edgekd.data import load_data
from edgekd.data.samples import Data
from edgekd.errors import Collector, InputError, MissingPackage, nearest, raise_all
from edgekd.installed import has_module
from edgekd.network.cost import layer_costs
from edgekd.network.identity import module_key
from edgekd.network.load import content_hash
from edgekd.run.plan.checks import check_device
from edgekd.run.plan.make import budget_faults
from edgekd.run.plan.planned import Request
from edgekd.run.plan.start import start_candidate, teacher_for, teacher_networks
from edgekd.run.plan.targets import budgets_of
from edgekd.run.request import Asked, Model, make_request, recipe_parts
from edgekd.searching.predicting import table_lines
from edgekd.searching.space import (
    Parameters,
    SearchSpace,
    check_space,
    describe,
    space_of,
    with_stages,
)
from edgekd.searching.spaces import Facts, space_for
from edgekd.searching.storage import check_storage, import_optuna
from edgekd.searching.untrained import is_timed
from edgekd.searching.warm import warm_starts
from edgekd.searching.widening import widened
from edgekd.store import check_writable, code_key, key_of
from edgekd.values.backend_lookup import backend_info
from edgekd.values.candidate import Candidate
from edgekd.values.measurement import Kind
from edgekd.values.ranges import OneOf, Range
from edgekd.values.recipe import named_files
from edgekd.values.target import Target

UNDECISIVE = ("budgets", "metadata", "report", "seed")
"""What of a recipe has no part in a trial's numbers, or has its part in the key by itself."""

BEFORE_TRAINING = "budgets: each trial's untrained file is run before its training"

Sampler = Literal["tpe", "random"]

Engine = Literal["processes", "ray"]

EarlyStopping = Literal["none", "halving", "median"]

TRIALS = 20
"""Trials of a search that is given neither a number nor a time."""


@dataclass(frozen=True)
class SearchOptions:
    """How long a search goes on and how. `trials` and `hours` are those of the whole search, over
    all calls in its folder. `space` names a default space; `storage` is Optuna's URL. `sampler`
    proposes trials: "tpe" learns from those before (Optuna's TPESampler), "random" is what it is to
    be compared with. `workers` run trials side by side, each with its share of the cores: as
    processes of this machine or, with the engine "ray", as tasks of Ray on a cluster.
    `early_stopping` ends trials that are clearly worse than others whose networks are no larger:
    "halving" (ASHA, Li et al. 2020) or "median" (Google Vizier, Golovin et al. 2017). `warm_start`
    is the folder of another search, whose front is tried first.
    """

    trials: int | None = None
    hours: float | None = None
    storage: str | None = None
    space: str = ""
    sampler: Sampler = "tpe"
    workers: int = 1
    engine: Engine = "processes"
    early_stopping: EarlyStopping = "none"
    warm_start: str | Path | None = None

    @property
    def most_trials(self) -> int | None:
        """How many trials there are at most; None if only the time ends the search."""
        return TRIALS if self.trials is None and self.hours is None else self.trials


@dataclass(frozen=True)
class Search:
    """A search that passed all checks. `request` is a trial's request, whose recipe has the first
    value of each range; `limits` are each target's budgets. `base` identifies everything that a
    trial's numbers depend on besides its recipe. `starts` are values that are tried first."""

    space: SearchSpace
    request: Request
    limits: dict[str, dict[str, float]]
    options: SearchOptions
    base: str
    starts: tuple[Parameters, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def accept(self) -> tuple[Kind, ...]:
        """The kinds of number besides measured ones that may satisfy a budget."""
        return cast(tuple[Kind, ...], self.request.accept)

    @property
    def out(self) -> Path:
        """The search's folder."""
        return self.request.out

    def key_of_table(self, table: Mapping[str, Any]) -> str:
        """What identifies a trial: two recipes with the same key give the same files."""
        decisive = {name: value for name, value in table.items() if name not in UNDECISIVE}
        return key_of(self.base, self.request.recipe.seed, decisive)

    def lines(self) -> list[str]:
        """The search in words, one line for each thing."""
        options = self.options
        names = ", ".join(target.name for target in self.request.targets)
        ends = [f"{options.most_trials} trials"] if options.most_trials else []
        ends += [f"{options.hours:g} hours"] if options.hours else []
        family = f" (the default space '{self.space.family}')" if self.space.family else ""
        size = f", {self.space.size} recipes" if self.space.size else ""
        rule = options.early_stopping
        stopping = f", early stopping by {rule}" if rule != "none" else ""
        return [
            f"search: {' or '.join(ends)} for {names}, seed {self.request.recipe.seed}{stopping}",
            f"space: {len(self.space.dimensions)} ranges{size}{family}",
            *(f"space: {describe(dimension)}" for dimension in self.space.dimensions),
            *(f"budgets: {line}" for line in self.tables),
            *([BEFORE_TRAINING] if any(map(is_timed, self.limits.values())) else []),
            *([f"warm start: {len(self.starts)} of {options.warm_start}"] if self.starts else []),
        ]


def make_search(model: Model | None, asked: Asked, options: SearchOptions) -> Search:
    """A search from a recipe with ranges, or from a model and the default space of its family.

    Raises `InputError` for everything that is wrong in what was asked; nothing is trained.
    """
    import_optuna()
    collect = Collector()
    collect.attempt(check_storage, options.storage)
    collect.attempt(_check_length, options)
    parts = collect.attempt(recipe_parts, model, asked, collect)
    space = collect.attempt(space_of, parts) if parts else None
    raise_all(collect.faults)
    assert space is not None
    check_space(space)
    request = _request(space, asked)
    data, start, base = _loaded(request)
    check_early_stopping(options, data)
    if not space.dimensions or options.space:
        space = _default_space(space, request, data, start, options.space)
        check_space(space)
        request = _request(space, asked)
    limits = {target.name: budgets_of(request, target) for target in request.targets}
    starts = () if options.warm_start is None else warm_starts(options.warm_start, space)
    tables = table_lines(request.device, request.targets, limits)
    return Search(space, request, limits, options, base, starts, tuple(tables))


def _check_length(options: SearchOptions) -> None:
    for name, value in (("--trials", options.trials), ("--hours", options.hours)):
        if value is not None and value <= 0:
            raise InputError(f"{value:g} is not above 0", where=name)
    if options.workers < 1:
        raise InputError(f"{options.workers} workers", where="--workers", allowed="1 or more")
    _check_choice("engine", options.engine, get_args(Engine))
    if options.engine == "ray" and not has_module("ray"):
        raise MissingPackage("ray", "ray", where="--engine ray")
    _check_choice("sampler", options.sampler, get_args(Sampler))
    _check_choice("early stopping", options.early_stopping, get_args(EarlyStopping))


def _check_choice(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        where, hint = f"--{what.replace(' ', '-')}", nearest(value, allowed)
        message = f"unknown {what} '{value}'"
        raise InputError(message, where=where, allowed=", ".join(allowed), hint=hint)


def check_early_stopping(options: SearchOptions, data: Data) -> None:
    """Refuse to stop trials early where nothing tells how well they do."""
    if options.early_stopping != "none" and not len(data.validation):
        raise InputError(
            "early stopping compares accuracies on validation samples, but there are none",
            where="--early-stopping",
            hint="set data.validation = 0.2 to hold some back",
        )


def _request(space: SearchSpace, asked: Asked) -> Request:
    """A trial's request, with every range at its first value, and brief measurements without the
    teacher's file: the best are measured in full afterwards."""
    recipe = space.recipe(first_value)
    rest: Any = {key: value for key, value in asked.items() if key not in USED}
    return replace(make_request(recipe, rest), quick=True, baseline=False)


USED = ("student", "teachers", "data", "stages", "settings")
"""What the recipe holds already."""


def first_value(place: str, among: Range) -> Any:
    """The first choice, or the low end."""
    return 0 if isinstance(among, OneOf) else among.low


def _loaded(request: Request) -> tuple[Data, Candidate | None, str]:
    """The data and the network, and the key of everything besides the stages that a trial depends
    on. Raises every fault of the recipe that no trial could mend."""
    recipe, collect = request.recipe, Collector(InputError)
    collect.attempt(check_writable, request.out)
    collect.attempt(check_device, request)
    collect.faults.extend(budget_faults(request))
    data = collect.attempt(load_data, recipe.data, recipe.folder)
    raise_all(collect.faults)
    assert data is not None
    teachers = [
        collect.attempt(teacher_for, network, recipe, data, where)
        for network, where in teacher_networks(recipe)
    ]
    network = recipe.student or recipe.model
    start = None
    if network.is_module:
        start = collect.attempt(start_candidate, network, recipe, data)
    raise_all(collect.faults)
    files = [
        content_hash(recipe.folder / f.path) for f in named_files(recipe.model_dump(mode="json"))
    ]
    base = key_of(
        code_key(measured=True),
        torch.__version__,
        data.sha256,
        [teacher.key for teacher in teachers if teacher],
        module_key(start.module) if start else "",  # it may have been given as an object
        files,
        [target.model_dump(mode="json", exclude={"budgets"}) for target in request.targets],
        request.device,
    )
    return data, start, base


def _default_space(
    space: SearchSpace, request: Request, data: Data, start: Candidate | None, name: str
) -> SearchSpace:
    """The recipe's own stages with ranges around their values, or the space of its family."""
    table = space.parts.table
    if table.get("stages") and not name:
        stages, before = widened([dict(stage) for stage in table["stages"]])
        if before:
            return with_stages(space, stages, "", before)
    family, made = space_for(_facts(request, data, start), name)
    return with_stages(space, made.stages(_facts(request, data, start)), family, {})


def _facts(request: Request, data: Data, start: Candidate | None) -> Facts:
    targets = request.targets
    kind = "" if start else request.recipe.model.kind
    return Facts(
        shares=_shares(start),
        attention=start is not None and _has_attention(start),
        task=data.task.name,
        fast_dtypes=_fast_on_all(targets),
        int8_only=any(_int8_only(target) for target in targets),
        finished_file=kind if kind in ("onnx", "tflite") else "",
    )


def _shares(start: Candidate | None) -> Mapping[str, float]:
    """The share of the MACs by kind of layer."""
    if start is None:
        return {}
    costs = layer_costs(start.module, start.example)
    total = sum(cost.macs for cost in costs) or 1
    shares: dict[str, float] = {}
    for cost in costs:
        if cost.macs:
            shares[cost.kind] = shares.get(cost.kind, 0.0) + cost.macs / total
    return shares


def _has_attention(start: Candidate) -> bool:
    return any("attention" in type(module).__name__.lower() for module in start.module.modules())


def _fast_on_all(targets: Sequence[Target]) -> tuple[str, ...]:
    first, *others = targets
    return tuple(
        dtype for dtype in first.fast_dtypes if all(dtype in other.fast_dtypes for other in others)
    )


def _int8_only(target: Target) -> bool:
    return any(backend_info(name).int8_only for name in target.backends)
