"""`package.module:callable` references from a recipe: import, call, and explain failures."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekd.errors import InputError, nearest, summary_of
from edgekd.installed import import_torchvision


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make modules in `folder` and in the working directory importable inside this block."""
    added = [str(folder.resolve()), str(Path.cwd())]
    before = list(sys.path)
    sys.path[:0] = [path for path in added if path not in before]
    try:
        yield
    finally:
        for path in added:
            if path not in before and path in sys.path:
                sys.path.remove(path)


def find_callable(reference: str, folder: Path, where: str) -> Callable[..., Any]:
    """The callable that `package.module:callable` refers to. Raises `InputError` if there is
    none."""
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(
            f"'{reference}' is not a callable's name",
            where=where,
            allowed="package.module:callable",
        )
    with importable(folder):
        module = _import(module_name, where)
    value: Any = module
    for part in attribute.split("."):
        names = [name for name in vars(value) if not name.startswith("_")]
        if part not in vars(value):
            raise InputError(
                f"'{module_name}' has no '{attribute}'",
                where=where,
                hint=nearest(part, names) or f"it has: {', '.join(sorted(names)[:12])}",
            )
        value = vars(value)[part]
    if not callable(value):
        raise InputError(f"'{reference}' is {_kind(value)}, which can't be called", where=where)
    return value  # type: ignore[no-any-return]


def call(reference: str, arguments: Mapping[str, Any], folder: Path, where: str) -> Any:
    """Call a reference with `arguments`; whatever goes wrong in it is raised as one
    `InputError`."""
    make = find_callable(reference, folder, where)
    _check_arguments(make, arguments, reference, where)
    try:
        with importable(folder):
            return make(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"'{reference}' failed: {summary_of(error)}", where=where) from error


def _check_arguments(
    make: Callable[..., Any], arguments: Mapping[str, Any], reference: str, where: str
) -> None:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        named = [name for name in signature.parameters if name != "self"]
        unknown = [key for key in arguments if key not in named]
        raise InputError(
            f"'{reference}' can't be called with these arguments: {error}",
            where=where,
            allowed=", ".join(named) or "no arguments",
            hint=nearest(unknown[0], named) if unknown else "",
        ) from None


def _import(name: str, where: str) -> ModuleType:
    try:
        return _imported(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == name or name.startswith(missing + "."):
            raise InputError(
                f"no module named '{name}'",
                where=where,
                hint="modules are looked up beside the recipe, in the working directory and "
                "among the installed packages",
            ) from None
        message = f"'{name}' imports '{missing}', which isn't installed"
        raise InputError(message, where=where) from error
    except Exception as error:
        raise InputError(f"importing '{name}' failed: {summary_of(error)}", where=where) from error


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import_torchvision()  # the module imports one that is built for another PyTorch
        return importlib.import_module(name)


def _kind(value: Any) -> str:
    return "a module" if isinstance(value, ModuleType) else f"of type {type(value).__name__}"
