"""How files are called on a board, and what has to lie beside them there."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError
from edgekd.formats.onnx_file import external_files
from edgekd.values.artifact import sha256_of


def plain_name(name: str) -> str:
    """A name that needs no care, with the suffix that runtimes go by."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[-100:] or "file"


@dataclass(frozen=True)
class Shipment:
    """A file and what it needs beside it: (path here, name there, SHA-256) of each, itself first.
    `folder` is a name for their content."""

    folder: str
    files: tuple[tuple[Path, str, str], ...]

    @property
    def name(self) -> str:
        """What the file itself is called there."""
        return self.files[0][1]


def shipment(file: Path) -> Shipment:
    """What goes to a board for this file. Raises as `companions`."""
    both = [(file, plain_name(file.name)), *companions(file)]
    files = tuple((path, name, sha256_of(path)) for path, name in both)
    sums = [(sha256, name) for _, name, sha256 in files]
    joint = hashlib.sha256(repr(sums).encode()).hexdigest()
    return Shipment(sums[0][0] if len(sums) == 1 else joint, files)


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
