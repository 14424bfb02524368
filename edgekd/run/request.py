"""Builds a request from command-line text or Python objects; all faults are reported together."""

# code-key: presents

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError, InputError, raise_all
from edgekd.measure.budgets import check_accept, parse_budget
from edgekd.registry import SOURCES
from edgekd.run.backend_choice import choice_faults, with_backends
from edgekd.run.plan.planned import Request
from edgekd.stages import Stage
from edgekd.store import cache_folder
from edgekd.values.recipe import (
    LARGEST_SEED,
    Recipe,
    default_recipe,
    override,
    recipe_from,
)
from edgekd.values.tables import read_toml
from edgekd.values.target import Target, load_target, target_files

Model = str | Path | nn.Module | Mapping[str, Any] | Recipe
TargetName = str | Path | Target


class Options(TypedDict, total=False):
    """The less common options of a run, as `edgekd.compress` documents them."""

    student: Model | None
    teachers: Sequence[Model]
    backends: Sequence[str]
    settings: Mapping[str, Any] | Iterable[str]
    device: str | None
    accept: Sequence[str]
    seed: int | None
    quick: bool
    resume: bool
    command: str


class Asked(Options, total=False):
    """Every option of a run besides its model."""

    target: TargetName | Sequence[TargetName]
    data: Any
    stages: Sequence[Stage | Mapping[str, Any]] | None
    budgets: Mapping[str, float] | Iterable[str]
    out: str | Path


def make_request(model: Model | None, asked: Asked) -> Request:
    """The request for a model, or for the default recipe; raises every fault at once."""
    collect = Collector()
    accept = tuple(asked.get("accept", ()))
    collect.faults.extend(check_accept(accept))
    targets = _targets(asked.get("target", ()), collect)
    backends = tuple(asked.get("backends", ()))
    collect.faults.extend(choice_faults(backends, targets))
    budgets = _budgets(asked.get("budgets", {}), collect)
    seed = asked.get("seed")
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        fault = InputError(
            f"{seed} is not a valid seed", where="--seed", allowed=f"0 to {LARGEST_SEED}"
        )
        collect.faults.append(fault)
    recipe = collect.attempt(_recipe, model, asked, collect)
    raise_all(collect.faults)
    assert recipe is not None
    if backends:
        targets = tuple(with_backends(target, backends) for target in targets)
    return Request(
        recipe=recipe if seed is None else recipe.model_copy(update={"seed": seed}),
        targets=targets,
        out=Path(asked.get("out", "runs/latest")).resolve(),
        device=asked.get("device"),
        accept=accept,
        budgets=budgets,
        quick=asked.get("quick", False),
        resume=asked.get("resume", True),
        cache=cache_folder(),
        command=asked.get("command", "edgekd.compress()"),
    )


def _targets(names: TargetName | Sequence[TargetName], collect: Collector) -> tuple[Target, ...]:
    """The targets' profiles, without duplicates."""
    several = [names] if isinstance(names, str | Path | Target) else list(names)
    if not several:
        hint = "run 'edgekd targets' for the list, then name one with --target"
        collect.faults.append(InputError("no target", where="--target", hint=hint))
    loaded = [
        name if isinstance(name, Target) else collect.attempt(load_target, str(name))
        for number, name in enumerate(several)
        if name not in several[:number]  # profiles have no hash
    ]
    profiles = [profile for profile in loaded if profile]
    collect.faults.extend(_name_clashes(profiles))
    return tuple({profile.name: profile for profile in profiles}.values())


def _name_clashes(targets: Sequence[Target]) -> list[EdgekdError]:
    """A fault for each target that shares its name with another: reports and locks use names."""
    files = target_files()
    known = {target.name: load_target(target.name) for target in targets if target.name in files}
    return [
        InputError(
            f"another target is also named '{target.name}'",
            where="--target",
            hint="rename the file and change the 'name' in it",
        )
        for target in targets
        if known.setdefault(target.name, target) != target
    ]


def _budgets(given: Mapping[str, float] | Iterable[str], collect: Collector) -> dict[str, float]:
    if isinstance(given, Mapping):
        return {name: float(limit) for name, limit in given.items()}
    limits = [collect.attempt(parse_budget, text) for text in given]
    return dict(limit for limit in limits if limit)


def _settings(given: Mapping[str, Any] | Iterable[str], collect: Collector) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    pairs = [collect.attempt(_setting, text) for text in given]
    return dict(pair for pair in pairs if pair)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        allowed = "KEY=VALUE, as in stage.distill.epochs=3"
        raise InputError(f"'{text}' is not KEY=VALUE", where="--set", allowed=allowed)
    return key.strip(), value.strip()


def _recipe(model: Model | None, asked: Asked, collect: Collector) -> Recipe:
    parts = recipe_parts(model, asked, collect)
    return recipe_from(parts.table, parts.folder, parts.where, parts.objects)


@dataclass(frozen=True)
class RecipeParts:
    """A recipe's table before it is checked, the folder that its paths start from, what errors
    call it, and the objects that it was given in Python."""

    table: dict[str, Any]
    folder: Path
    where: str
    objects: dict[str, Any] = field(default_factory=dict)


def recipe_parts(model: Model | None, asked: Asked, collect: Collector) -> RecipeParts:
    """The recipe on disk, or one built from the arguments; objects are kept beside its tables."""
    objects: dict[str, Any] = {}
    path = _recipe_path(model)
    if path is not None:
        table, folder, where = read_toml(path), path.resolve().parent, str(path)
    elif isinstance(model, Recipe):
        table, folder, where = model.model_dump(mode="json"), model.folder, "recipe"
        objects = model.objects
    else:
        table, folder, where = {"model": _network(model, "model", objects)}, Path.cwd(), "compress"
    if (student := asked.get("student")) is not None:
        table["student"] = _network(student, "student", objects)
    if teachers := asked.get("teachers"):
        places = [(teacher, f"teachers.{n}") for n, teacher in enumerate(teachers, 1)]
        table["teachers"] = [_network(teacher, place, objects) for teacher, place in places]
    if (data := asked.get("data")) is not None:
        table["data"] = _data(data, objects)
    if (stages := asked.get("stages")) is not None:
        table["stages"] = [_stage(stage) for stage in stages]
    for key, value in _settings(asked.get("settings", {}), collect).items():
        override(table, key, value)
    return RecipeParts(table, folder, where, objects)


def _recipe_path(model: Model | None) -> Path | None:
    if model is None:
        return default_recipe()
    named = isinstance(model, str | Path) and ":" not in str(model)
    return Path(str(model)) if named and Path(str(model)).suffix not in SUFFIXES else None


SUFFIXES = {".pt2": "program", ".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}
"""The suffixes of model files, and their key in a recipe; any other file is a recipe."""


def _network(model: Any, place: str, objects: dict[str, Any]) -> dict[str, Any]:
    """A recipe's table for a network: an object, a file, a factory or a table."""
    if isinstance(model, nn.Module):
        objects[place] = model
        return {"given": type(model).__qualname__}
    if isinstance(model, Mapping):
        return dict(model)
    if isinstance(model, str | Path):
        text, suffix = str(model), Path(model).suffix
        if suffix in SUFFIXES:
            return {SUFFIXES[suffix]: str(Path(model).resolve())}
        if text.partition(":")[0] in SOURCES.names():
            return {"source": text}
        if ":" in text:
            return {"factory": text}
    raise InputError(
        f"{model!r:.80} is not a model",
        where=place,
        allowed=f"an nn.Module, a file ({', '.join(SUFFIXES)}), 'package.module:factory', "
        "'timm:NAME' or another source, a table",
    )


def _data(data: Any, objects: dict[str, Any]) -> dict[str, Any]:
    """A recipe's data table; a mapping with a `source`, which may hold objects, is taken as one."""
    if isinstance(data, str | Path):
        return {"source": str(data)}
    if isinstance(data, Mapping) and "source" in data:
        return {**data, **_data(data["source"], objects)}
    objects["data"] = (
        {"train": data.train, "validation": data.validation, "test": data.test}
        if isinstance(data, Data)
        else data
    )
    return {"source": "given"}


def _stage(stage: Stage | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(stage, Mapping):
        return dict(stage)
    table: dict[str, Any] = stage.model_dump(mode="json", exclude_unset=True)
    return {"kind": stage.kind, **table}
