"""Loads the user's networks from their sources, with the weights that a recipe names."""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.formats.onnx_file import external_files
from edgekd.installed import versions_of
from edgekd.network.evaluation import protect_inputs
from edgekd.network.identity import module_key
from edgekd.network.plain_weights import hooks_to_parametrizations
from edgekd.network.sources import request_of, source_of
from edgekd.store import read_errors
from edgekd.values.artifact import sha256_of
from edgekd.values.recipe import Network


def load_network(network: Network, folder: Path, where: str) -> nn.Module:
    """The float module of a recipe's network table, in eval mode on the CPU.

    Paths are relative to `folder`, which may also contain a factory's module. Without `weights`
    the module keeps its source's weights; a module that was given as an object is copied. `where`
    names the table in errors. Raises `InputError` for any fault of the source, its arguments or a
    file; nothing is unpickled.
    """
    if network.given is not None:
        module = _copied(network, where)
    elif network.is_module:
        module = source_of(network, where).load(request_of(network, folder, where))
        if network.weights is not None:
            load_weights(module, folder / network.weights)
    else:
        raise InputError(
            f"'{network.kind}' is not a PyTorch network",
            where=where,
            allowed="source, factory, program",
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
            allowed="source, factory, program",
            hint="call edgekd.compress() with the object again, or name a factory",
        )
    try:
        copied: nn.Module = copy.deepcopy(network.module).cpu()
        return copied
    except Exception as error:
        raise InputError(f"the module can't be copied: {error}", where=where) from error


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
    """SHA-256 of the network's content: its file, the object itself, or what its source says
    determines it, with its arguments, its weights and the versions of the source's packages."""
    if network.module is not None:
        return module_key(network.module)
    digest = hashlib.sha256(network.kind.encode())
    for part in _content(network, folder):
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()


def _content(network: Network, folder: Path) -> Iterator[str]:
    if not network.is_module:
        path = folder / network.name
        yield content_hash(path)
        if network.onnx is not None:
            yield from (content_hash(file) for file in external_files(path))
        return
    source, request = source_of(network, "model"), request_of(network, folder, "model")
    files = [content_hash(file) for file in source.files(request)]
    yield from files or [network.name]  # where a file is does not matter
    yield json.dumps(network.arguments, sort_keys=True, default=str)
    yield str(versions_of(source.packages.values()))
    yield from source.content(request)
    if network.weights is not None:
        yield content_hash(folder / network.weights)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names; `InputError` if it is missing."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)}\0{sha256_of(file)}\0".encode())
        return digest.hexdigest()
    with read_errors(path):
        return sha256_of(path)


def _check_finite(module: nn.Module, where: str) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"NaN or infinity in the weights '{name}'", where=where)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"'{name}'" for name in names[:4]) + more
