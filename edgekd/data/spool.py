"""Iterable data sets, read once onto the disk, so that samples can be drawn in any order."""

import hashlib
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.draws import callers_randomness, generators_of, seed_draw
from edgekd.data.inputs import FIXED
from edgekd.data.prepare import Prepare
from edgekd.data.reading import SampleReader, form_of, joined
from edgekd.errors import InputError, first_line
from edgekd.store import cache_folder, disk_errors, make_folder
from edgekd.values.tree import Tree, leaves, like


@dataclass(frozen=True, eq=False)
class Spooled:
    """Samples on the disk, as a map-style data set; `example` is one sample's inputs."""

    folder: Path
    example: Tree
    targets: Tensor
    fingerprint: str

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tree, Tensor]:
        tensors = []
        for number, leaf in enumerate(leaves(self.example)):
            content = np.memmap(self.folder / str(number), np.uint8, mode="r")
            part = content[row * leaf.nbytes : (row + 1) * leaf.nbytes].copy()
            tensors.append(torch.from_numpy(part).view(leaf.dtype).view(leaf.shape))
        return like(self.example, tensors), self.targets[row]


def spooled(dataset: Any, where: str, prepare: Prepare | None) -> Spooled:
    """All samples of an iterable with a length, prepared and written to the cache folder, where a
    set with the same content shares its files. Random changes inside it are drawn once.

    `InputError` for an iterable that fails, ends early, or has a sample of another form.
    """
    count = len(dataset)
    place = cache_folder() / "iterables"
    with disk_errors(place):
        make_folder(place)
        work = Path(tempfile.mkdtemp(dir=place, prefix=".reading-"))
        try:
            example, targets, digest = _written(dataset, count, work, where, prepare)
            folder = place / digest
            if not folder.is_dir():
                work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Spooled(folder, example, targets, digest)


def _written(
    dataset: Any, count: int, work: Path, where: str, prepare: Prepare | None
) -> tuple[Tree, Tensor, str]:
    reader = SampleReader(_Current(), where, prepare=prepare)
    digest, targets, example = hashlib.sha256(), list[Tensor](), None
    with callers_randomness(), ExitStack() as files:
        seed_draw(FIXED, 0, generators_of(dataset))
        samples, opened = iter(dataset), list[Any]()
        for row in range(count):
            try:
                reader.dataset.sample = next(samples)
            except StopIteration:
                message = f"the iterable ends after {row} samples, but its length is {count}"
                raise InputError(message, where=where) from None
            except Exception as error:
                message = f"sample {row} can't be read: {type(error).__name__}: {first_line(error)}"
                raise InputError(message, where=where) from error
            x, y = reader.sample(None, row)
            if example is None:
                example = x
                reader = SampleReader(reader.dataset, where, form_of(x), prepare=prepare)
                paths = [work / str(number) for number in range(len(leaves(x)))]
                opened = [files.enter_context(path.open("wb")) for path in paths]
            for file, leaf in zip(opened, leaves(x), strict=True):
                content = leaf.contiguous().numpy().tobytes()
                file.write(content)
                digest.update(content)
            digest.update(y.numpy().tobytes())
            targets.append(y.unsqueeze(0))
    digest.update(repr(form_of(example)).encode())
    return example, joined(targets, where), digest.hexdigest()[:24]


class _Current:
    """The iterable's last sample, which the reader takes whatever row it asks for."""

    sample: Any = None

    def __getitem__(self, row: int) -> Any:
        return self.sample
