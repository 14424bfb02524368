"""Files in folders that name their class, in parts or all together."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekd.data.split import held_out
from edgekd.errors import InputError

PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""The names that a part's folder may have."""


@dataclass(frozen=True, eq=False)
class ClassFiles:
    """Files with labels (N,), as a map-style data set of what `read` makes of a path."""

    root: Path
    files: tuple[Path, ...]
    targets: tuple[int, ...]
    read: Callable[[Path], Any]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.read(self.files[row]), self.targets[row]

    def name_of(self, row: int) -> str:
        """A sample's file, for messages."""
        return str(self.files[row].relative_to(self.root))

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change, and of the labels."""
        digest = hashlib.sha256(repr((self.targets, self.read)).encode())
        for file in self.files:
            status = file.stat()
            place = file.relative_to(self.root)
            digest.update(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Found:
    """Parts by name, each the files with their labels; `labels` name the classes."""

    root: Path
    parts: dict[str, list[tuple[Path, int]]]
    labels: tuple[str, ...]

    def datasets(self, read: Callable[[Path], Any]) -> dict[str, Any]:
        """The parts as a factory returns them."""
        made: dict[str, Any] = {"labels": self.labels}
        for name, files in self.parts.items():
            paths, targets = [path for path, _ in files], [label for _, label in files]
            made[name] = ClassFiles(self.root, tuple(paths), tuple(targets), read)
        return made


def find_files(root: Path, suffixes: Collection[str], test: float) -> Found:
    """The files below `root`: ROOT/train/CLASS/FILE, .../val/..., .../test/..., or ROOT/CLASS/FILE,
    of which `test` of each class is held back. With two parts the second is the test set.

    `InputError` for a folder without such files, or a class that training doesn't have.
    """
    if not root.is_dir():
        raise InputError("no such folder", where=str(root))
    folders = {part: folder for part in PARTS if (folder := _part_folder(root, part)) is not None}
    if "train" not in folders:
        return _held_back(root, suffixes, test)
    if "test" not in folders:
        if "validation" not in folders:
            allowed = "train and test (or val)"
            raise InputError("there is only a folder 'train'", where=str(root), allowed=allowed)
        folders["test"] = folders.pop("validation")
    labels = _classes(folders["train"], suffixes)
    for folder in folders.values():
        for strange in sorted(set(_classes(folder, suffixes)) - set(labels)):
            message = f"class '{strange}' has no training files"
            raise InputError(message, where=str(folder), allowed=", ".join(labels))
    parts = {part: _files(folder, labels, suffixes) for part, folder in folders.items()}
    return Found(root, parts, labels)


def _part_folder(root: Path, part: str) -> Path | None:
    return next((root / name for name in PARTS[part] if (root / name).is_dir()), None)


def _held_back(root: Path, suffixes: Collection[str], share: float) -> Found:
    labels = _classes(root, suffixes)
    files = _files(root, labels, suffixes)
    keep, hold = held_out(torch.tensor([label for _, label in files]), share)
    parts = {"train": _rows(files, keep), "test": _rows(files, hold)}
    return Found(root, parts, labels)


def _rows(files: Sequence[tuple[Path, int]], index: torch.Tensor) -> list[tuple[Path, int]]:
    return [files[row] for row in index.tolist()]


def _classes(folder: Path, suffixes: Collection[str]) -> tuple[str, ...]:
    names = sorted(inner.name for inner in folder.iterdir() if inner.is_dir())
    found = tuple(name for name in names if any(_below(folder / name, suffixes)))
    if not found:
        raise InputError(
            "no files in folders that name their class",
            where=str(folder),
            allowed=f"CLASS/FILE, ending in {', '.join(sorted(suffixes))}",
        )
    return found


def _files(
    folder: Path, labels: Sequence[str], suffixes: Collection[str]
) -> list[tuple[Path, int]]:
    return [
        (file, label)
        for label, name in enumerate(labels)
        if (folder / name).is_dir()
        for file in sorted(_below(folder / name, suffixes))
    ]


def _below(folder: Path, suffixes: Collection[str]) -> Iterable[Path]:
    return (file for file in folder.rglob("*") if file.suffix.lower() in suffixes)
