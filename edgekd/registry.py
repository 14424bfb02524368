"""The registry: a method's file name is its name in a recipe and in its test.

`edgekd/training/losses/reverse_kl.py` registers `reverse-kl` by decorating one class or function
with `@LOSSES.register(paper="...")`. Listing reads files without importing them, so nothing is
imported before it is used. Third parties add methods through entry points of the group
`edgekd.losses`, and so on.
"""

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from edgekd.errors import InputError, ToolError, nearest
from edgekd.package import package_folder

F = TypeVar("F", bound=Callable[..., Any])

REGISTERS = re.compile(r"^@[A-Z]+\.register\(", re.MULTILINE)
"""Matches in every file that adds a method, so that listing needs no imports."""


@dataclass(frozen=True)
class Entry:
    """One registered method: the callable that makes it, and what its listing shows."""

    name: str
    make: Callable[..., Any]
    paper: str

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.make) or "").split("\n")[0]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters that a recipe may set, with types and defaults, from the signature."""
        return inspect.signature(self.make).parameters


class Registry:
    """The methods of one kind, by file name in `package` and in the entry points of `group`;
    `listed` is whether `edgekd methods` shows them."""

    def __init__(self, kind: str, group: str, package: str = "", *, listed: bool = True) -> None:
        self.kind = kind
        self.listed = listed
        self.group = group
        self.package = package or group
        self._entries: dict[str, Entry] = {}

    def register(self, *, paper: str = "") -> Callable[[F], F]:
        """Register a class or function under the name of its file."""

        def decorate(make: F) -> F:
            name = make.__module__.rpartition(".")[2].replace("_", "-")
            self._entries[name] = Entry(name, make, paper)
            return make

        return decorate

    @property
    def _where_listed(self) -> str:
        return f"'edgekd methods {self.kind}' lists them" if self.listed else ""

    @property
    def folder(self) -> Path:
        """The folder of the package, found without importing it or its parent packages."""
        top, *below = self.package.split(".")
        if top == "edgekd":
            return package_folder().joinpath(*below)
        spec = find_spec(top)
        places = spec.submodule_search_locations if spec is not None else None
        path = Path(next(iter(places or [""])), *below)
        if not places or not path.is_dir():
            raise ModuleNotFoundError(f"no package {self.package}", name=self.package)
        return path

    def names(self) -> list[str]:
        """Every name, sorted, without importing any method."""
        return sorted(self._packaged() | {point.name for point in entry_points(group=self.group)})

    @functools.cache  # noqa: B019 - a registry lives as long as the process
    def _packaged(self) -> frozenset[str]:
        """The names of this package's files that register something; other files support them."""
        names = set()
        for module in pkgutil.iter_modules([str(self.folder)]):
            if REGISTERS.search(self.source_of(module.name).read_text(encoding="utf-8")):
                names.add(module.name.replace("_", "-"))
        return frozenset(names)

    def source_of(self, name: str) -> Path:
        """The file in which a method of this package registers itself."""
        module = self.folder / name.replace("-", "_")
        return module / "__init__.py" if module.is_dir() else module.with_suffix(".py")

    def get(self, name: str, where: str = "") -> Entry:
        """The method with that name. Raises `InputError` with the nearest spelling if there is
        none."""
        if name not in self._entries:
            names = self.names()
            if name not in names:
                raise InputError(
                    f"unknown {self.kind} '{name}'",
                    where=where,
                    allowed=", ".join(names),
                    hint=nearest(name, names) or self._where_listed,
                )
            self._import(name, where)
        return self._entries[name]

    def _import(self, name: str, where: str) -> None:
        for point in entry_points(group=self.group):
            if point.name == name:
                make = self._load(point, where)
                papers = [entry.paper for entry in self._entries.values() if entry.make is make]
                paper = papers[0] if papers else getattr(make, "paper", "")
                self._entries[name] = Entry(name, make, paper)
                return
        importlib.import_module(f"{self.package}.{name.replace('-', '_')}")

    def _load(self, point: EntryPoint, where: str) -> Callable[..., Any]:
        """What an entry point names; a package that does not import is one clear error."""
        try:
            make: Callable[..., Any] = point.load()
        except Exception as error:
            raise ToolError(
                f"the {self.kind} '{point.name}' does not import from {point.value}: "
                f"{type(error).__name__}: {error}",
                where=where,
                hint="fix or uninstall the package that provides it",
            ) from error
        return make


STAGES = Registry("stage", "edgekd.stages")
LOSSES = Registry("loss", "edgekd.losses", "edgekd.training.losses")
SCHEMES = Registry("scheme", "edgekd.schemes", "edgekd.stages.distill.schemes")
CRITERIA = Registry("criterion", "edgekd.criteria", "edgekd.stages.prune.criteria")
BACKENDS = Registry("backend", "edgekd.backends", listed=False)
DEVICES = Registry("device", "edgekd.devices", listed=False)
TASKS = Registry("task", "edgekd.tasks", "edgekd.data.tasks")
DIAGNOSTICS = Registry("diagnostic", "edgekd.diagnostics", "edgekd.measure.diagnostics")
SCHEDULES = Registry("schedule", "edgekd.schedules", "edgekd.training.schedules")
SOURCES = Registry("source", "edgekd.sources", "edgekd.network.sources")
SPACES = Registry("space", "edgekd.spaces", "edgekd.searching.spaces")
