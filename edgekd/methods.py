"""What `edgekd methods` shows: every registered method, from its own signature and docstring.

The list is read from the source files without importing anything; a single method is imported to
show it in full.
"""

# code-key: presents

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from edgekd.errors import InputError, nearest
from edgekd.registry import (
    CRITERIA,
    DIAGNOSTICS,
    LOSSES,
    SCHEDULES,
    SCHEMES,
    SOURCES,
    SPACES,
    STAGES,
    TASKS,
    Entry,
    Registry,
)

KINDS = {
    registry.kind: registry
    for registry in (
        SOURCES,
        STAGES,
        SCHEMES,
        LOSSES,
        SCHEDULES,
        CRITERIA,
        TASKS,
        DIAGNOSTICS,
        SPACES,
    )
}


@dataclass(frozen=True)
class Listed:
    """One line of the list."""

    kind: str
    name: str
    summary: str
    paper: str


@dataclass(frozen=True)
class Method:
    """One method in full. `parameters` are name, type and default as text; `recipe` is a recipe
    snippet that uses it."""

    kind: str
    name: str
    summary: str
    paper: str
    parameters: tuple[tuple[str, str, str], ...]
    text: str
    recipe: str


def list_methods(kind: str | None = None) -> list[Listed]:
    """Every method of one kind, or of all kinds. Raises `InputError` for an unknown kind."""
    if kind is not None and kind not in KINDS:
        raise InputError(
            f"unknown kind of method '{kind}'",
            where="methods",
            allowed=", ".join(KINDS),
            hint=nearest(kind, KINDS),
        )
    registries = [KINDS[kind]] if kind else list(KINDS.values())
    return [_listed(registry, name) for registry in registries for name in registry.names()]


def find_method(name: str) -> list[Method]:
    """The methods with that name, of any kind."""
    matches = [_method(registry, name) for registry in KINDS.values() if name in registry.names()]
    if not matches:
        names = [name for registry in KINDS.values() for name in registry.names()]
        raise InputError(
            f"unknown method '{name}'",
            where="methods",
            allowed=f"a kind ({', '.join(KINDS)}) or a name ({', '.join(names)})",
            hint=nearest(name, [*names, *KINDS]),
        )
    return matches


def methods_of(kind: str | None = None) -> list[Method]:
    """Like `list_methods`, but with each method in full."""
    return [_method(KINDS[each.kind], each.name) for each in list_methods(kind)]


def _listed(registry: Registry, name: str) -> Listed:
    """Read from the source of one of edgekd's own methods; another package's method is imported."""
    path = registry.source_of(name)
    listed = _registered(path) if path.is_file() else None
    if listed is None:
        entry = registry.get(name)
        return Listed(registry.kind, name, entry.summary, entry.paper)
    text, paper = listed
    return Listed(registry.kind, name, text.split("\n")[0], paper)


def _registered(path: Path) -> tuple[str, str] | None:
    """The docstring and paper of the method that a file registers, if they can be read
    statically."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and getattr(mark.func, "attr", "") == "register":
                papers = [k.value for k in mark.keywords if k.arg == "paper"]
                paper = getattr(papers[0], "value", None) if papers else ""
                text = ast.get_docstring(node)
                return (text, paper) if text and isinstance(paper, str) else None
    return None


def _method(registry: Registry, name: str) -> Method:
    entry = registry.get(name)
    return Method(
        registry.kind,
        name,
        entry.summary,
        entry.paper,
        tuple(_parameters(entry)),
        _text(registry, entry),
        snippet(registry.kind, entry),
    )


def _text(registry: Registry, entry: Entry) -> str:
    """The method's docstring; for a loss, followed by what its kind compares."""
    text = inspect.getdoc(entry.make) or ""
    if registry.kind != "loss" or not isinstance(entry.make, type):
        return text
    kind = next(
        (each for each in entry.make.__mro__[1:] if each.__module__ == registry.package), None
    )
    return f"{text}\n\n{(inspect.getdoc(kind) or '').split(chr(10))[0]}" if kind else text


def _parameters(entry: Entry) -> list[tuple[str, str, str]]:
    return [
        (
            name,
            _type(parameter.annotation),
            "required" if parameter.default is parameter.empty else repr(parameter.default),
        )
        for name, parameter in entry.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _type(annotation: object) -> str:
    """A type in words: `Annotated[int, Gt(gt=0)]` is "int, above 0"."""
    bounds = [_bound(each) for each in getattr(annotation, "__metadata__", ())]
    plain = get_args(annotation)[0] if bounds else annotation
    text = inspect.formatannotation(plain).replace("typing.", "")
    return ", ".join([text, *filter(None, bounds)])


def _bound(mark: object) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = [f"{word} {getattr(mark, key)}" for key, word in words.items() if hasattr(mark, key)]
    return ", ".join(bounds)


def snippet(kind: str, entry: Entry) -> str:
    """TOML for one method; empty for a kind that recipes do not name.

    A method's class may have an `example`, a mapping of keys that its table requires, and a scheme
    may have `around`, the other tables of the recipe that it needs.
    """
    keys: dict[str, Any] = dict(getattr(entry.make, "example", {}))
    if kind == "loss":
        return _distilled(_loss(entry, keys))
    if kind == "schedule":
        table = {"schedule": entry.name, **_numbers(entry), **keys}
        key = "temperature" if getattr(entry.make, "for_parameters", False) else "weight"
        return _distilled({"name": "kl", key: table})
    if kind == "scheme":
        scheme = {"name": entry.name, **keys} if keys else entry.name
        return getattr(entry.make, "around", "") + _stage("distill", {"scheme": scheme})
    if kind == "criterion":
        weights = {} if getattr(entry.make, "structured", True) else {"granularity": "weights"}
        return _stage("prune", {"criterion": entry.name, "amount": 0.3, **weights, **keys})
    if kind == "stage":
        return _stage(entry.name, {"amount": 0.3, **keys} if entry.name == "prune" else keys)
    if kind == "source":
        return _section("model", keys)
    if kind == "task":
        task = {"name": entry.name, **keys} if keys else entry.name
        return _section("data", {"source": "mypackage.data:datasets", "task": task})
    if kind == "diagnostic":
        wish = {"name": entry.name, **keys} if keys else entry.name
        return _section("report", {"diagnostics": [wish]})
    return ""


def _loss(entry: Entry, keys: Mapping[str, Any]) -> dict[str, Any]:
    from edgekd.training.losses import DepthsLoss, FeatureLoss

    table: dict[str, Any] = {"name": entry.name, "weight": 0.9}
    make = entry.make
    needs_layers = isinstance(make, type) and issubclass(make, FeatureLoss | DepthsLoss)
    if needs_layers and not getattr(make, "accepts_outputs", False) and "student" not in keys:
        table["layers"] = "auto"
    if "temperature" in entry.parameters:
        table["temperature"] = entry.parameters["temperature"].default
    return {**table, **keys}


def _numbers(entry: Entry) -> dict[str, float]:
    """Values for a schedule's required parameters: from 8 down to 2."""
    known = {"start": 8.0, "end": 2.0}
    given = {key: p.default for key, p in entry.parameters.items() if key in known}
    return {key: known[key] if d is entry.parameters[key].empty else d for key, d in given.items()}


def _distilled(loss: Mapping[str, Any]) -> str:
    return f'[[stages]]\nkind = "distill"\nlabel_weight = 0.1\nlosses = [\n  {_toml(loss)},\n]\n'


def _stage(kind: str, table: Mapping[str, Any]) -> str:
    return _section("[stages]", {"kind": kind, **table})


def _section(name: str, table: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_toml(table[key])}" for key in table)]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(value[key])}" for key in value) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
