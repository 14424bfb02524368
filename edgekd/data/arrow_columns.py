"""Columns of a set that Hugging Face's `datasets` saved, as a map-style data set."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekd.errors import InputError

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What a whole stream of Arrow ends with."""


def cut_files(root: Path) -> Iterator[Path]:
    """The Arrow files below `root` that lack their end. A file that is cut between two of its
    batches would otherwise be read as a shorter one."""
    for file in sorted(root.rglob("*.arrow")):
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - len(END)))
            if stream.read() != END:
                yield file


@dataclass(frozen=True, eq=False)
class ArrowColumns:
    """Some columns of a saved set; its rows are memory-mapped. Labels that are texts are their
    places in `classes`. `numbers` are the rows' numbers in the set that was saved if these are some
    of them."""

    rows: Any
    inputs: tuple[str, ...]
    label: str
    classes: tuple[str, ...] = ()
    numbers: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        values = self.rows[row]
        x = {name: _plain(values[name], name) for name in self.inputs}
        return (next(iter(x.values())) if len(x) == 1 else x), self._target(values[self.label])

    def chosen(self, index: Tensor) -> "ArrowColumns":
        """The rows at these positions (n,)."""
        numbers = index.tolist()
        return replace(self, rows=self.rows.select(numbers), numbers=tuple(numbers))

    def name_of(self, row: int) -> str:
        """A sample's row in the set that was saved, for messages."""
        return f"row {row if self.numbers is None else self.numbers[row]}"

    @cached_property
    def places(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.classes)}

    def _target(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in self.places:
            allowed = ", ".join(self.classes)
            message = f"label '{value}' is not among the training labels"
            raise InputError(message, where=f"column '{self.label}'", allowed=allowed)
        return self.places[value]

    @property
    def targets(self) -> list[Any]:
        """All labels."""
        return [self._target(value) for value in self.rows[self.label]]

    @property
    def fingerprint(self) -> str:
        """A hash of what `datasets` tells its caches apart by, and of the files' names, sizes and
        times of change."""
        digest = hashlib.sha256(f"{self.rows._fingerprint} {self.inputs} {self.label}".encode())
        for file in self.rows.cache_files:
            status = Path(file["filename"]).stat()
            facts = f"{Path(file['filename']).name}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(facts.encode())
        return digest.hexdigest()


def _plain(value: Any, name: str) -> Any:
    """An image in gray or RGB, as images from files are; other values as they are."""
    if value is None:
        raise ValueError(f"column '{name}' is empty")
    if hasattr(value, "getbands") and value.mode not in ("L", "RGB"):
        return value.convert("RGB")
    return value
