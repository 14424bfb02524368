"""Samples in tar files, as WebDataset writes them, read in any order by their place in the file."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError
from edgekd.store import read_errors

BLOCK = 512
"""Tar files consist of blocks of so many bytes."""

Member = tuple[int, int, int]
"""The number of the shard, and the offset and size of a file in it."""


def _image(content: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image if image.mode in ("L", "RGB") else image.convert("RGB")


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "ppm", "pgm"), _image),
    "cls": lambda content: int(content),
    "txt": lambda content: content.decode("utf-8"),
    "json": json.loads,
    "npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False),
}
"""What a file in a shard is read as, by its ending."""


@dataclass(frozen=True, eq=False)
class Shards:
    """Samples of tar files as a map-style data set: `inputs` and `label` are endings.

    A sample's files have one name up to the first dot. Only their places are held.
    """

    shards: tuple[Path, ...]
    keys: tuple[str, ...]
    samples: tuple[Mapping[str, Member], ...]
    inputs: tuple[str, ...]
    label: str

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        members = self.samples[row]
        x = {ending: self._decoded(members, ending) for ending in self.inputs}
        y = self._decoded(members, self.label) if self.label in members else None
        return (next(iter(x.values())) if len(x) == 1 else x), y

    def _decoded(self, members: Mapping[str, Member], ending: str) -> Any:
        shard, offset, size = members[ending]
        with self.shards[shard].open("rb") as file:
            file.seek(offset)
            return DECODERS[ending.rpartition(".")[2]](file.read(size))

    def name_of(self, row: int) -> str:
        """A sample's key, for messages."""
        return self.keys[row]

    @property
    def fingerprint(self) -> str:
        """A hash of the shards' names, sizes and times of change."""
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.shards]
        return hashlib.sha256(repr((facts, self.inputs, self.label)).encode()).hexdigest()


def index_shards(paths: Sequence[Path], inputs: Sequence[str], label: str) -> Shards:
    """Where each sample's files lie. `InputError` for a shard that is cut off, or a sample that
    lacks one of the `inputs`; by default they are all endings of the first but the label's."""
    samples: dict[str, dict[str, Member]] = {}
    for number, path in enumerate(paths):
        try:
            with read_errors(path, "a tar file"), tarfile.open(path) as archive:
                for info in archive:
                    if info.isfile():
                        key, _, ending = info.name.rpartition("/")[2].partition(".")
                        place = f"{info.name.rpartition('/')[0]}/{key}".lstrip("/")
                        member = number, info.offset_data, info.size
                        samples.setdefault(f"{path.name}:{place}", {})[ending.lower()] = member
        except tarfile.TarError as error:
            raise InputError(f"not a whole tar file: {error}", where=str(path)) from None
        _refuse_cut(path, [m for members in samples.values() for m in members.values()], number)
    if not samples:
        raise InputError("no samples", where=str(paths[0].parent))
    first = next(iter(samples.values()))
    wanted = tuple(inputs) or tuple(e for e in first if e != label and _decodes(e))
    for key, members in samples.items():
        for ending in wanted:
            if ending not in members or not _decodes(ending):
                allowed = ", ".join(sorted(members))
                raise InputError(
                    f"sample {key} has no '.{ending}'", where="shards", allowed=allowed
                )
    return Shards(tuple(paths), tuple(samples), tuple(samples.values()), wanted, label)


def _decodes(ending: str) -> bool:
    return ending.rpartition(".")[2] in DECODERS


def _refuse_cut(path: Path, members: Sequence[Member], number: int) -> None:
    """A tar file ends with blocks of zeros, after the last file's own last block."""
    ends = [
        offset + -(-size // BLOCK) * BLOCK for shard, offset, size in members if shard == number
    ]
    if path.stat().st_size < max(ends, default=0) + BLOCK:
        raise InputError("the tar file is cut off", where=str(path))
