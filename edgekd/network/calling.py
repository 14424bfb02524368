"""Every loaded network takes one argument, the tree of its inputs, and returns a tree of tensors.

That is how stages, exporters and runtimes call any network alike. `forward` is replaced on the
instance only; the user's own is called with keyword arguments from a dict, or positional ones
from a tuple.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from edgekd.errors import InputError, nearest
from edgekd.values.sizes import OpenSize
from edgekd.values.tree import Tree, leaf, mapped, named_leaves

Output = str | int | tuple[str, ...] | None
"""Which outputs to keep: one by name or position, several by name, or all."""

_OWN_FORWARD = "_edgekd_own_forward"
"""Where a `forward` is kept that was set on the instance by somebody else."""

_OUTPUT = "_edgekd_output"

_BAKED = "_edgekd_baked"
"""Where the arithmetic of preprocessing is kept that the network does by itself."""


_OPEN = "_edgekd_open"
"""Where the sizes of the inputs are kept that exports leave open."""


def take_one_argument(module: nn.Module, output: Output = None) -> None:
    """Make `module(inputs)` work for any tree of inputs, of which the module gets copies: it may
    change them in place, and samples are read repeatedly. The outputs become a tensor, or a tuple
    or dict of tensors; None, flags and caches among them are dropped. `output` keeps some of them.
    """
    given = vars(module).get("forward")
    if getattr(given, "__func__", None) is _forward:
        return
    if given is not None:
        setattr(module, _OWN_FORWARD, given)
    setattr(module, _OUTPUT, output)
    module.forward = types.MethodType(_forward, module)


def _forward(self: nn.Module, inputs: Tree) -> Tree:
    """A `forward` of one argument; bound to the instance like a method, so that copies of a module
    have their own."""
    baked = vars(self).get(_BAKED)
    copies = mapped(baked or (lambda value: value.clone()), inputs)
    args, kwargs = _spread(self, copies)
    own = vars(self).get(_OWN_FORWARD)
    result = own(*args, **kwargs) if own else type(self).forward(self, *args, **kwargs)
    return _kept(tensors_of(result), vars(self).get(_OUTPUT))


def bake(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Make `module(inputs)` change each input first, in every copy and export of it too."""
    setattr(module, _BAKED, change)


def leave_open(module: nn.Module, sizes: tuple[OpenSize, ...]) -> None:
    """Have exports of the module, and of its copies, leave these sizes of its inputs open."""
    setattr(module, _OPEN, sizes)


def open_sizes(module: nn.Module) -> tuple[OpenSize, ...]:
    """The sizes that exports of a module leave open."""
    found: tuple[OpenSize, ...] = vars(module).get(_OPEN, ())
    return found


def _spread(module: nn.Module, inputs: Tree) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How the user's `forward` wants these inputs."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    parameters = _parameters(module)
    if isinstance(inputs, Mapping):
        named = [name for name, kind in parameters.items() if kind is not kind.VAR_POSITIONAL]
        anything = any(kind is kind.VAR_KEYWORD for kind in parameters.values())
        if anything or all(name in named for name in inputs):
            return (), dict(inputs)
        return (inputs,), {}
    many = any(kind is kind.VAR_POSITIONAL for kind in parameters.values())
    if many or len(parameters) >= len(inputs):
        return tuple(inputs), {}
    return (inputs,), {}


def _parameters(module: nn.Module) -> dict[str, Any]:
    own = vars(module).get(_OWN_FORWARD)
    signature = inspect.signature(own or types.MethodType(type(module).forward, module))
    return {name: parameter.kind for name, parameter in signature.parameters.items()}


def input_fault(module: nn.Module, inputs: Tree, where: str) -> InputError | None:
    """Why the network's `forward` can't take these inputs by their names, if it can't. One with
    `**kwargs` may take any."""
    if not isinstance(inputs, Mapping):
        return None
    parameters = _parameters(module)
    if len(parameters) == 1 or any(kind is kind.VAR_KEYWORD for kind in parameters.values()):
        return None
    unknown = [name for name in inputs if name not in parameters]
    return untaken(module, unknown[0], where) if unknown else None


def unnamed_inputs(module: nn.Module, inputs: Tree) -> list[str]:
    """The inputs that go into the `**kwargs` of the network's `forward`, which may ignore them."""
    parameters = _parameters(module)
    kinds = parameters.values()
    if not isinstance(inputs, Mapping) or not any(kind is kind.VAR_KEYWORD for kind in kinds):
        return []
    return [str(name) for name in inputs if name not in parameters]


def untaken(module: nn.Module, name: str, where: str) -> InputError:
    """The error for an input that the network does not take."""
    parameters = _parameters(module)
    known = [each for each, kind in parameters.items() if kind is not kind.VAR_KEYWORD]
    return InputError(
        f"the samples have an input '{name}', which forward() does not take",
        where=where,
        allowed=", ".join(known),
        hint=nearest(name, known),
    )


def lone_parameter(module: nn.Module) -> str:
    """The name of the only input of the network's `forward`; empty if there are several."""
    parameters = list(_parameters(module))
    return parameters[0] if len(parameters) == 1 else ""


def tensors_of(outputs: Any) -> Tree:
    """A network's outputs as a tree: a tensor, or a tuple or dict of tensors that have a batch
    dimension. A lone tensor in a container is that tensor."""
    found = _tensors(outputs)
    named = {} if found is None else named_leaves(found)
    return next(iter(named.values())) if len(named) == 1 else found


def _tensors(value: Any) -> Tree:
    if isinstance(value, Tensor):
        return value if value.dim() else None
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        parts = {str(name): _tensors(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not None} or None
    if isinstance(value, tuple | list):
        if hasattr(value, "_asdict"):
            return _tensors(value._asdict())
        kept = tuple(part for part in map(_tensors, value) if part is not None)
        return kept or None
    return None


def _kept(outputs: Tree, output: Output) -> Tree:
    if output is None or outputs is None:
        return outputs
    if isinstance(output, tuple):
        return {name: leaf(outputs, name, "output") for name in output}
    return leaf(outputs, output, "output")
