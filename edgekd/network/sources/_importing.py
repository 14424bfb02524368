"""Imports a library's module, and builds a network with it; what goes wrong is one `InputError`."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgekd.errors import InputError, nearest, summary_of
from edgekd.network.sources import ModelRequest

_DECLARED: list[torch.library.Library] = []
"""Kept for as long as the process lives, because their operators go with them."""


def imported(module: str, request: ModelRequest) -> ModuleType:
    """A library's module. One that is installed and does not import is the user's environment."""
    try:
        _declare_torchvision_operators()
        return importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"'{module}' does not import: {summary_of(error)}",
            where=request.where,
            hint="install the releases of torch and torchvision that belong together",
        ) from error


def _declare_torchvision_operators() -> None:
    """Let torchvision be imported beside a PyTorch that its compiled operators don't load with.

    They are built for one PyTorch: a CUDA build of torchvision beside a CPU build of PyTorch
    fails with "operator torchvision::nms does not exist", though few networks use any. With their
    schemas declared it imports, and calling one still fails.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return  # its absence is reported where it is needed
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _DECLARED:
            raise
        declared = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            declared.define(schema)  # type: ignore[no-untyped-call]
        _DECLARED.append(declared)
        importlib.import_module("torchvision")


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
