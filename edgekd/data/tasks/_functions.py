"""Functions of the user's own that a task is made of."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.errors import InputError, summary_of
from edgekd.factories import find_callable
from edgekd.values.tree import leaves, mapped

Function = str | Callable[..., Any]
"""`package.module:callable`, looked up beside the recipe, or a callable."""


def function_of(given: Function | None, name: str) -> Callable[..., Any] | None:
    """The callable that a recipe names under `data.task`."""
    return find_callable(given, Path(), f"data.task: {name}") if isinstance(given, str) else given


def function_identity(function: Callable[..., Any] | None) -> str:
    """A function's name with a hash of the file that it stands in."""
    if function is None:
        return "none"
    name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # built in, or an object that can be called
        file = None
    content = Path(file).read_bytes() if file and Path(file).is_file() else b""
    return f"{name} {hashlib.sha256(content).hexdigest()[:16]}"


def loss_by(function: Callable[..., Any] | None, outputs: Any, y: Any) -> Tensor:
    """What the user's loss gives for a batch; zero without one. `InputError` for anything but a
    scalar tensor."""
    if function is None:
        return leaves(outputs)[0].sum() * 0.0
    value = function(outputs, y)
    if not isinstance(value, Tensor) or value.dim():
        raise InputError(
            f"the loss gives {form_of(value)}", where="data.task: loss", allowed="a scalar tensor"
        )
    return value


def try_loss(function: Callable[..., Any] | None, outputs: Any, y: Any) -> None:
    """Run the user's loss and its gradient once, so that what they raise is raised before training.
    `InputError` for one that has no gradient."""
    if function is None:
        return
    with torch.enable_grad():
        given = mapped(
            lambda x: x.detach().requires_grad_() if x.is_floating_point() else x, outputs
        )
        value = loss_by(function, given, y)
        if not value.requires_grad:
            message = "the loss has no gradient: it does not depend on the outputs"
            hint = (
                "compute it from the outputs with PyTorch's functions, without .item() or .detach()"
            )
            raise InputError(message, where="data.task: loss", hint=hint)
        floats = [x for x in leaves(given) if x.requires_grad]
        torch.autograd.grad(value, floats, allow_unused=True)


def form_of(value: object) -> str:
    """A value as an error names it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return type(value).__name__


def fault_of(
    functions: Mapping[str, Callable[..., Any]], outputs: object, y: Tensor, where: str
) -> InputError | None:
    """What the first of the user's functions that fails on (outputs, y) raises, by its name."""
    for name, function in functions.items():
        try:
            function(outputs, y)
        except InputError as error:
            return error
        except Exception as error:
            message = f"the {name} fails on the network's outputs: {summary_of(error)}"
            return InputError(message, where=f"{where}: data.task")
    return None
