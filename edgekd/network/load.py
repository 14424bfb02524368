"""Loads the user's networks from their sources, with the weights that a recipe names."""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.formats.onnx_file import external_files
from edgekd.installed import versions_of
from edgekd.network.calling import take_one_argument
from edgekd.network.checkpoints import checkpoint_files
from edgekd.network.identity import module_key
from edgekd.network.layers_kept import keep_layers
from edgekd.network.plain_weights import hooks_to_parametrizations
from edgekd.network.sources import request_of, source_of
from edgekd.network.weights import load_weights
from edgekd.store import key_of, read_errors
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
            hint="a file that is only run can only be a teacher, under [[teachers]]",
        )
    _check_finite(module, where)
    keep_layers(module, network.layers, f"{where}.layers")
    hooks_to_parametrizations(module)
    take_one_argument(module, network.output)
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


def network_key(network: Network, folder: Path) -> str:
    """SHA-256 of the network's content: its file, the object itself, or what its source says
    determines it, with its arguments, its weights and the versions of the source's packages."""
    if network.module is not None:
        key = module_key(network.module)
        return key_of(key, *_taken(network)) if _taken(network) else key
    digest = hashlib.sha256(network.kind.encode())
    for part in _taken(network):
        digest.update(part.encode())
    for part in _content(network, folder):
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()


def _taken(network: Network) -> list[str]:
    """What is taken from the network, where that is not all of it."""
    output = [] if network.output is None else [repr(network.output)]
    return output + ([repr(sorted(network.layers.items()))] if network.layers else [])


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
        yield from (content_hash(file) for file in checkpoint_files(folder / network.weights))


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
