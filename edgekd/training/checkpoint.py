"""A training checkpoint: one safetensors file, replaced atomically after every epoch.

Tensors are named `model.*`, `companions.*`, `best.*` and `optimizer.INDEX.NAME`; everything that is
not a tensor is JSON in the file's header. One file and one rename, so a kill at any moment leaves
either the last epoch or this one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.store import write_beside
from edgekd.training.sharding import like_parameter

HEADER = "edgekd"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able header beside `path`, then rename into place."""
    from safetensors.torch import save

    # A clone each: safetensors refuses tensors that share memory, as tied weights do.
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_beside(path, save(whole, {HEADER: json.dumps(header, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the header of a file, or None if there is no readable one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def sha256_of_state(*modules: nn.Module) -> str:
    """A hash of the names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            if not isinstance(value, Tensor):
                continue
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state as named tensors, and what is not a tensor as a table."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            kept: dict[str, Any] = tensors if isinstance(value, Tensor) else plain
            kept[f"optimizer.{index}.{name}"] = value
    return tensors, plain


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Restore the state from `flatten_optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    named = {key: value for key, value in tensors.items() if key.startswith("optimizer.")}
    for key, value in {**named, **plain}.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for place, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = like_parameter(value, parameters[place])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, with `prefix` and a dot before each key."""
    return {f"{prefix}.{key}": value for key, value in tensors.items() if isinstance(value, Tensor)}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix` and a dot, without that prefix."""
    head = f"{prefix}."
    return {k.removeprefix(head): value for k, value in tensors.items() if k.startswith(head)}
