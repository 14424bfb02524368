"""Loads the user's networks: a factory with safetensors weights, or a `torch.export` program."""

import copy
import hashlib
import inspect
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.factories import call, find_callable
from edgekd.formats.onnx_file import external_files
from edgekd.network.evaluation import protect_inputs
from edgekd.network.identity import module_key, source_files
from edgekd.network.plain_weights import hooks_to_parametrizations
from edgekd.network.programs import load_program
from edgekd.store import read_errors
from edgekd.values.artifact import sha256_of
from edgekd.values.recipe import Network


def load_network(network: Network, folder: Path, where: str) -> nn.Module:
    """The float module of a recipe's `factory` or `program` table, in eval mode on the CPU.

    Paths are relative to `folder`, which may also contain the factory's module. Without `weights`
    the module keeps the factory's weights; a module that was given as an object is copied. `where`
    names the table in errors. Raises `InputError` for any fault of the factory, its arguments or
    the file; nothing is unpickled.
    """
    module: nn.Module
    if network.given is not None:
        module = _copied(network, where)
    elif network.program is not None:
        module = load_program(folder / network.program)
    elif network.factory is not None:
        module = _from_factory(network, folder, where)
    else:
        raise InputError(
            f"'{network.source}' is not a PyTorch network",
            where=where,
            allowed="factory, program",
            hint="an ONNX, TFLite or Keras model can only be a teacher, under [[teachers]]",
        )
    _check_finite(module, where)
    hooks_to_parametrizations(module)
    protect_inputs(module)
    return module.eval()


def _copied(network: Network, where: str) -> nn.Module:
    if network.module is None:
        raise InputError(
            f"'{network.given}' was an object in Python, which a recipe can't hold",
            where=where,
            allowed="factory, program",
            hint="call edgekd.compress() with the object again, or name a factory",
        )
    try:
        copied: nn.Module = copy.deepcopy(network.module).cpu()
        return copied
    except Exception as error:
        raise InputError(f"the module can't be copied: {error}", where=where) from error


def _from_factory(network: Network, folder: Path, where: str) -> nn.Module:
    reference = network.factory or ""
    module = call(reference, network.arguments, folder, f"{where}.factory")
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise InputError(
            f"'{reference}' returned {kind}", where=f"{where}.factory", allowed="an nn.Module"
        )
    if network.weights is not None:
        load_weights(module, folder / network.weights)
    return module


def load_weights(module: nn.Module, path: Path) -> None:
    """Load every parameter and buffer of `module` from a safetensors file, or raise
    `InputError`."""
    tensors = read_weights(path)
    wanted = module.state_dict()
    where = str(path)
    faults: list[EdgekdError] = []
    for name, twin in _tied(module).items():  # safetensors stores tensors that share memory once
        if name not in tensors and twin in tensors:
            tensors[name] = tensors[twin]
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    if missing:
        faults.append(InputError(f"lacks {_listed(missing)}, which the network has", where=where))
    if unexpected:
        hint = nearest(unexpected[0], missing)
        faults.append(
            InputError(
                f"has {_listed(unexpected)}, which the network lacks", where=where, hint=hint
            )
        )
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            faults.append(
                InputError(
                    f"'{name}' has shape {tuple(tensor.shape)}",
                    where=where,
                    allowed=f"{tuple(wanted[name].shape)}",
                )
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            faults.append(InputError(f"NaN or infinity in '{name}'", where=where))
    raise_all(faults)
    module.load_state_dict(tensors)


def _tied(module: nn.Module) -> dict[str, str]:
    """The other name of each tensor that has two, in both directions."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    pairs = [(name, twin) for same in names.values() for name in same for twin in same]
    return {name: twin for name, twin in pairs if name != twin}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `InputError` if it is missing, truncated or not one."""
    try:
        with read_errors(path):
            weights: dict[str, Tensor] = load_safetensors(path.read_bytes())
        return weights
    except (SafetensorError, KeyError, ValueError) as error:
        hint = ""
        if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
            hint = "convert a PyTorch checkpoint with safetensors.torch.save_file(state_dict, path)"
        raise InputError(
            f"not a complete safetensors file: {error}", where=str(path), hint=hint
        ) from None


def network_key(network: Network, folder: Path) -> str:
    """SHA-256 of the network's content: its file, the object itself, or a factory's reference with
    its arguments, its source and that of every user module that it imports."""
    if network.module is not None:
        return module_key(network.module)
    digest = hashlib.sha256(network.source.encode())
    if network.factory is not None:
        digest.update(network.factory.encode())
        digest.update(json.dumps(network.arguments, sort_keys=True, default=str).encode())
        digest.update(_source_of(network.factory, folder).encode())
        module = network.factory.partition(":")[0]
        for name, file in source_files([module], folder).items():
            digest.update(f"{name} {content_hash(file)}".encode())
        if network.weights is not None:
            digest.update(content_hash(folder / network.weights).encode())
        return digest.hexdigest()
    path = folder / getattr(network, network.source)
    digest.update(content_hash(path).encode())
    if network.onnx is not None:
        for file in external_files(path):
            digest.update(content_hash(file).encode())
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names; `InputError` if it is missing."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)}\0{sha256_of(file)}\0".encode())
        return digest.hexdigest()
    with read_errors(path):
        return sha256_of(path)


def _source_of(reference: str, folder: Path) -> str:
    module = inspect.getmodule(find_callable(reference, folder, "factory"))
    try:
        return inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        return ""


def _check_finite(module: nn.Module, where: str) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"NaN or infinity in the weights '{name}'", where=where)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"'{name}'" for name in names[:4]) + more
