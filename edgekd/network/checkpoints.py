"""Reads the tensors of checkpoints without executing anything in them.

Formats: safetensors; the sharded form of both (`*.index.json`); and what `torch.save` writes, which
is read with PyTorch's restricted unpickler: tensors and plain containers, and nothing beyond its
own allow list.
"""

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from edgekd.errors import InputError, first_line
from edgekd.store import read_errors

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""The suffixes of files written by `torch.save`; every other file is read as safetensors."""

INDEX = ".index.json"
ZIP = b"PK\x03\x04"
SAFETENSORS_HEADER = 8
"""Bytes before the header of a safetensors file, which is a JSON object."""


def read_checkpoint(path: Path) -> Any:
    """A checkpoint's content on the CPU: a dict of tensors by name, or whatever tree of plain
    containers `torch.save` was given. Raises `InputError` if the file is missing, truncated, not a
    checkpoint, or would have to be unpickled."""
    if path.name.endswith(INDEX):
        return _read_shards(path)
    if path.suffix in PICKLED and not _is_safetensors(path):
        return _read_pickled(path)
    return read_safetensors(path)


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """The files that make up a checkpoint: itself, and the shards that an index names."""
    if not path.name.endswith(INDEX):
        return (path,)
    return (path, *(path.parent / name for name in sorted(set(_weight_map(path).values()))))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `InputError` if it is missing, truncated or not one."""
    try:
        with read_errors(path):
            tensors: dict[str, Tensor] = load_safetensors(path.read_bytes())
        return tensors
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"not a complete safetensors file: {error}",
            where=str(path),
            hint=f"a file that torch.save wrote needs one of the suffixes {', '.join(PICKLED)}"
            if _starts(path, 2) in (ZIP[:2], b"\x80\x02")
            else "",
        ) from None


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Every tensor that an index names, from the shard that it names for it."""
    places = _weight_map(path)
    tensors: dict[str, Tensor] = {}
    for file in checkpoint_files(path)[1:]:
        shard = read_checkpoint(file)
        named = [name for name, place in places.items() if place == file.name]
        absent = [name for name in named if not isinstance(shard, Mapping) or name not in shard]
        if absent:
            raise InputError(f"lacks '{absent[0]}', which {path.name} says it has", where=str(file))
        tensors |= {name: shard[name] for name in named}
    return tensors


def _weight_map(path: Path) -> dict[str, str]:
    """The shard's file name of each tensor. Only files beside the index are accepted."""
    with read_errors(path):
        raw = path.read_bytes()
    try:
        places = json.loads(raw)["weight_map"]
        ok = all(isinstance(value, str) and Path(value).name == value for value in places.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        ok = False
    if not ok or not places:
        raise InputError(
            "not an index of a sharded checkpoint",
            where=str(path),
            allowed='{"weight_map": {"TENSOR": "FILE", ...}}, with the files beside it',
        )
    named: dict[str, str] = places
    return named


def _read_pickled(path: Path) -> Any:
    zipped = _starts(path, len(ZIP)) == ZIP  # only this form can be mapped instead of read
    try:
        with read_errors(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated storages
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from None
    except Exception as error:
        if zipped and "TorchScript" in str(error):
            raise InputError(
                "a TorchScript program, not a checkpoint",
                where=str(path),
                hint="use it as a black-box teacher, [[teachers]] torchscript = ..., or save its "
                "state_dict()",
            ) from None
        raise InputError(
            f"not a complete PyTorch checkpoint: {first_line(error)[:160]}", where=str(path)
        ) from None


def _refusal(path: Path, error: Exception) -> InputError:
    """Why the restricted unpickler stopped, and the command that converts a trusted file."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []
    if not names and "unsupported global" not in str(error).lower():
        message = "not a complete PyTorch checkpoint, or one that needs unpickling"
        return InputError(message, where=str(path))
    objects = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return InputError(
        f"it pickles {objects or 'Python objects'}, and unpickling them can run any code",
        where=str(path),
        allowed="tensors in plain containers",
        hint=f"if you trust the file, convert it: {conversion(path)}",
    )


def conversion(path: Path) -> str:
    """The command that extracts the state dict of a checkpoint that has to be unpickled."""
    to = path.with_suffix(".weights.pt").name
    code = (
        f"import torch; c = torch.load('{path.name}', map_location='cpu', weights_only=False); "
        "c = c if not isinstance(c, dict) else "
        "c.get('ema') or c.get('state_dict') or c.get('model') or c; "
        f"torch.save(c if isinstance(c, dict) else c.float().state_dict(), '{to}')"
    )
    return f'python -c "{code}"'


def _is_safetensors(path: Path) -> bool:
    """Whether a file with PyTorch's suffix is a safetensors file all the same."""
    return _starts(path, SAFETENSORS_HEADER + 1)[SAFETENSORS_HEADER:] == b"{"


def _starts(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""  # reading it says why
