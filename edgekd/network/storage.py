"""A float module on disk without pickle: its structure as JSON, its tensors as safetensors.

Stages change a network's structure (they remove channels and split layers), so weights alone are
not enough to restore it. Each submodule's class and plain attributes are written, and on reading
they are applied to a fresh network from the user's own factory, so no code is ever loaded from a
file.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.errors import InputError, ToolError

STRUCTURE, WEIGHTS = "structure.json", "weights.safetensors"

# Only classes from here are made anew; every other class must already be in the network.
TRUSTED = ("torch.nn.", "edgekd.")


def save_module(module: nn.Module, folder: Path) -> None:
    """Write the structure and the tensors of a module into an existing folder."""
    parts = [
        {"name": name, "class": _class_name(part), "attributes": _plain_attributes(part)}
        for name, part in module.named_modules(remove_duplicate=False)
    ]
    (folder / STRUCTURE).write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    tensors = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    save_file({name: value.clone() for name, value in tensors.items()}, folder / WEIGHTS)


def load_module(skeleton: nn.Module, folder: Path) -> nn.Module:
    """Give `skeleton`, a network fresh from its factory, the structure and tensors in `folder`.

    The skeleton is changed and returned in eval mode. Raises `InputError` if the files are damaged
    or name a class that is neither in the skeleton nor part of PyTorch or edgekd.
    """
    try:
        parts = json.loads((folder / STRUCTURE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except Exception as error:  # safetensors raises a type of its own for a malformed header
        raise InputError(f"a stored stage is damaged: {error}", where=str(folder)) from None
    known = {_class_name(part): type(part) for part in skeleton.modules()}
    described = {part["name"]: part for part in parts}
    modules: dict[str, nn.Module] = {"": skeleton}
    for name, part in described.items():
        if name:
            modules[name] = _placed(name, part, modules, known, folder)
        _restore_attributes(modules[name], part["attributes"])
    for name, part in modules.items():
        _order_children(name, part, described)
    _restore_tensors(skeleton, modules, tensors)
    return skeleton.eval()


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {
        key: _encoded(value)
        for key, value in vars(module).items()
        if (not key.startswith("_") or key == "_reversed_padding_repeated_twice")
        and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _encoded(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_encoded(item) for item in value]}
    return [_encoded(item) for item in value] if isinstance(value, list) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_decoded(item) for item in value["tuple"])
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def _placed(
    name: str,
    part: dict[str, Any],
    modules: dict[str, nn.Module],
    known: dict[str, type[nn.Module]],
    folder: Path,
) -> nn.Module:
    """The submodule of that name: the skeleton's own if its class is right, else a new one."""
    parent_name, _, child = name.rpartition(".")
    parent = modules[parent_name]
    present = parent._modules.get(child)
    if present is not None and _class_name(present) == part["class"]:
        return present
    made = _blank(known.get(part["class"]) or _trusted_class(part["class"], folder))
    parent._modules[child] = made
    return made


def _trusted_class(path: str, folder: Path) -> type[nn.Module]:
    module, _, name = path.rpartition(".")
    if path.startswith(TRUSTED):
        kind = getattr(importlib.import_module(module), name, None)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            return kind
    raise InputError(
        f"a stored stage names the class {path}", where=str(folder), allowed="torch.nn"
    )


def _blank(made_of: type[nn.Module]) -> nn.Module:
    """An instance without attributes; they come from the structure file."""
    module = made_of.__new__(made_of)
    nn.Module.__init__(module)
    for name in ("weight", "bias"):
        module.register_parameter(name, None) if made_of.__module__.startswith("torch.nn") else None
    return module


def _restore_attributes(module: nn.Module, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        if key not in module._parameters and key not in module._buffers:
            vars(module)[key] = _decoded(value)


def _order_children(name: str, module: nn.Module, described: dict[str, Any]) -> None:
    """Drop the children that the stages removed and put the rest in the order of the file."""
    prefix = f"{name}." if name else ""
    kept = [
        key[len(prefix) :]
        for key in described
        if key and key.startswith(prefix) and "." not in key[len(prefix) :]
    ]
    children = dict(module._modules)
    module._modules.clear()
    module._modules.update({child: children[child] for child in kept})


def _restore_tensors(
    skeleton: nn.Module, modules: dict[str, nn.Module], tensors: dict[str, Tensor]
) -> None:
    """Assign the modules their tensors; a parameter shared under two names is shared again."""
    identities = {name: id(value) for name, value in skeleton.state_dict(keep_vars=True).items()}
    made: dict[int, nn.Parameter] = {}
    for key, value in tensors.items():
        owner_name, _, name = key.rpartition(".")
        owner = modules[owner_name]
        if name in owner._buffers or name in ("running_mean", "running_var", "num_batches_tracked"):
            owner.register_buffer(name, value)
            continue
        tied = made.get(identities.get(key, 0))
        if tied is None or not torch.equal(tied, value):
            tied = nn.Parameter(value, requires_grad=value.is_floating_point())
            if key in identities:
                made[identities[key]] = tied
        owner._parameters[name] = tied
    for part in skeleton.modules():
        if isinstance(part, nn.RNNBase):
            part._init_flat_weights()  # which else still has the old tensors
    missing = set(skeleton.state_dict()) - set(tensors)
    if missing:
        raise ToolError(f"a stored stage lacks {', '.join(sorted(missing))}")
