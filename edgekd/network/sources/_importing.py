"""Imports a library's module, and builds a network with it; what goes wrong is one `InputError`."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from edgekd.errors import InputError, nearest, summary_of
from edgekd.installed import import_torchvision
from edgekd.network.sources import ModelRequest


def imported(module: str, request: ModelRequest) -> ModuleType:
    """A library's module. One that is installed and does not import is the user's environment."""
    try:
        import_torchvision()
        return importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"'{module}' does not import: {summary_of(error)}",
            where=request.where,
            hint="install the releases of torch and torchvision that belong together",
        ) from error


def built(make: Callable[..., Any], request: ModelRequest, **arguments: Any) -> nn.Module:
    """The network that a library's function returns for `arguments` and those of the request."""
    try:
        module = make(**{**arguments, **request.arguments})
    except Exception as error:
        raise InputError(
            f"'{request.name}' can't be built: {summary_of(error)}",
            where=f"{request.where}.arguments" if request.arguments else request.where,
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(f"'{request.name}' is a {type(module).__name__}", where=request.where)
    return module


def check_name(request: ModelRequest, names: list[str], library: str, listing: str) -> None:
    """Raise `InputError` with the nearest spelling if a library has no network of that name."""
    if request.name not in names:
        raise InputError(
            f"{library} has no model '{request.name}'",
            where=f"{request.where}.source",
            hint=nearest(request.name, names) or f"{listing} lists its {len(names)} models",
        )
