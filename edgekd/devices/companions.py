"""The names of files on a board, and the files that an ONNX model needs beside it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError
from edgekd.formats.onnx_file import external_files
from edgekd.values.artifact import sha256_of


def plain_name(name: str) -> str:
    """A file name without special characters, with the suffix that runtimes rely on."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[-100:] or "file"


@dataclass(frozen=True)
class Shipment:
    """A file and the files it needs beside it: (local path, name there, SHA-256) of each, the file
    itself first. `folder` is a name derived from their content."""

    folder: str
    files: tuple[tuple[Path, str, str], ...]

    @property
    def name(self) -> str:
        """The file's name on the board."""
        return self.files[0][1]


def shipment(file: Path) -> Shipment:
    """What has to be sent to a board for this file. Raises the errors of `companions`."""
    both = [(file, plain_name(file.name)), *companions(file)]
    files = tuple((path, name, sha256_of(path)) for path, name in both)
    sums = [(sha256, name) for _, name, sha256 in files]
    joint = hashlib.sha256(repr(sums).encode()).hexdigest()
    return Shipment(sums[0][0] if len(sums) == 1 else joint, files)


def companions(file: Path) -> list[tuple[Path, str]]:
    """The files that an ONNX file needs beside it, with the names recorded in it.

    Raises `InputError` for a name that leads out of its folder, as it would on the board too.
    """
    if file.suffix.lower() != ".onnx":
        return []
    files = []
    try:
        named = external_files(file)
    except InputError:  # the board's runtime reports what is wrong with it
        return []
    for path in named:
        name = str(path.relative_to(file.parent)) if path.is_relative_to(file.parent) else ""
        if not name or ".." in Path(name).parts or "\0" in name:
            raise InputError(f"its external data is outside its folder: '{path}'", where=str(file))
        if not path.is_file():
            raise InputError(f"its external data '{name}' is not beside it", where=str(file))
        files.append((path, name))
    return files
