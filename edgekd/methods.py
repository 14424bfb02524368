"""What `edgekd methods` shows: every registered method, from its own signature and docstring."""

import inspect
from dataclasses import dataclass

from edgekd.errors import InputError, nearest
from edgekd.registry import CRITERIA, DIAGNOSTICS, LOSSES, SCHEMES, STAGES, TASKS, Entry, Registry

KINDS = {
    registry.kind: registry for registry in (STAGES, SCHEMES, LOSSES, CRITERIA, TASKS, DIAGNOSTICS)
}


@dataclass(frozen=True)
class Method:
    """One method as it is listed; `parameters` are name, type and default as text."""

    kind: str
    name: str
    summary: str
    paper: str
    parameters: tuple[tuple[str, str, str], ...]
    text: str


def list_methods(kind: str | None = None) -> list[Method]:
    """Every method of one kind, or of all; an unknown kind is refused."""
    if kind is not None and kind not in KINDS:
        raise InputError(
            f"unknown kind of method '{kind}'",
            where="methods",
            allowed=", ".join(KINDS),
            hint=nearest(kind, KINDS),
        )
    registries = [KINDS[kind]] if kind else list(KINDS.values())
    return [_method(registry, name) for registry in registries for name in registry.names()]


def find_method(name: str) -> list[Method]:
    """The methods of that name, of whatever kind."""
    found = [_method(registry, name) for registry in KINDS.values() if name in registry.names()]
    if not found:
        names = [name for registry in KINDS.values() for name in registry.names()]
        raise InputError(
            f"unknown method '{name}'",
            where="methods",
            allowed=f"a kind ({', '.join(KINDS)}) or a name ({', '.join(names)})",
            hint=nearest(name, [*names, *KINDS]),
        )
    return found


def _method(registry: Registry, name: str) -> Method:
    entry = registry.get(name)
    return Method(
        registry.kind,
        name,
        entry.summary,
        entry.paper,
        tuple(_parameters(entry)),
        inspect.getdoc(entry.make) or "",
    )


def _parameters(entry: Entry) -> list[tuple[str, str, str]]:
    return [
        (
            name,
            inspect.formatannotation(parameter.annotation).replace("typing.", ""),
            "required" if parameter.default is parameter.empty else repr(parameter.default),
        )
        for name, parameter in entry.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
