"""How files are called on a board, and what has to lie beside them there."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import InputError
from edgekd.onnx_files import external_files


def plain_name(name: str) -> str:
    """A name that needs no care, with the suffix that runtimes go by."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[-100:] or "file"


def companions(file: Path) -> list[tuple[Path, str]]:
    """What an ONNX file needs beside it, by the names that stand in it.

    Raises `InputError` for a name that leads out of its folder: it would do so on the board too.
    """
    if file.suffix.lower() != ".onnx":
        return []
    found = []
    try:
        named = external_files(file)
    except InputError:  # the runtime over there says what is wrong with it
        return []
    for path in named:
        name = str(path.relative_to(file.parent)) if path.is_relative_to(file.parent) else ""
        if not name or ".." in Path(name).parts or "\0" in name:
            raise InputError(f"its external data lies elsewhere: '{path}'", where=str(file))
        if not path.is_file():
            raise InputError(f"its external data '{name}' is not beside it", where=str(file))
        found.append((path, name))
    return found


def joint_hash(sums: Sequence[tuple[str, str]]) -> str:
    """One name for a file and its companions, from their hashes and names."""
    return hashlib.sha256(repr(sums).encode()).hexdigest()
