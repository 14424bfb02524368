"""A network's identity for cache keys: its weights, its structure and the user's code in it."""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from edgekd.factories import importable

_INSTALLED = {
    Path(path).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
} | {Path(__file__).resolve().parents[1]}
"""Folders whose code is identified by its version: Python, installed packages and edgekd."""

_PLAIN = (bool, int, float, str, bytes, type(None))


def module_key(module: nn.Module) -> str:
    """SHA-256 of a module: every parameter and buffer, and its structure."""
    digest = hashlib.sha256(structure_key(module).encode())
    for _, tensor in _tensors(module):
        held = tensor.detach().cpu().contiguous()
        digest.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def structure_key(module: nn.Module) -> str:
    """SHA-256 of a module without its tensors' values: the names, types and shapes of its
    tensors, each submodule's class with its plain attributes (a stride, a rate, a flag), and the
    source of the user's code behind the classes."""
    digest = hashlib.sha256()
    for name, tensor in _tensors(module):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
    classes = {type(part).__module__ for part in module.modules()}
    for name, part in module.named_modules():
        plain = {k: v for k, v in vars(part).items() if _is_plain(v) and k != "training"}
        digest.update(f"{name} {type(part).__qualname__} {sorted(plain.items())!r}\0".encode())
    for name, path in source_files(classes).items():
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    named: list[tuple[str, torch.Tensor]] = [*module.named_parameters(remove_duplicate=False)]
    return [*named, *module.named_buffers(remove_duplicate=False)]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return isinstance(value, _PLAIN)


def source_files(modules: Iterable[str], folder: Path | None = None) -> dict[str, Path]:
    """The user's source files by module name: those of `modules` and of all that they import.

    Python's library, installed packages and edgekd are left out. Modules that are not loaded are
    looked up in `folder` and in the working directory, as a recipe's factories are.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file_of(name, folder)
        if path is None or path.suffix != ".py" or _is_installed(path):
            continue
        found[name] = path
        waiting += [*_imports(path, name), *filter(None, [name.rpartition(".")[0]])]
    return dict(sorted(found.items()))


def _is_installed(path: Path) -> bool:
    """Also in another environment's folder that this one reads, as with --system-site-packages."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.resolve().is_relative_to(folder) for folder in _INSTALLED)


def _file_of(name: str, folder: Path | None) -> Path | None:
    """The path of a module's source. The recipe's own folder comes first: a module of that name
    that another recipe loaded earlier in this process is not the one that this recipe means."""
    if folder is not None:
        place = folder.joinpath(*name.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if file else None
    try:
        with importable(folder or Path()):
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _imports(path: Path, name: str) -> Iterator[str]:
    """Every module that a source file may import; `from a import b` may mean a module `a.b`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
