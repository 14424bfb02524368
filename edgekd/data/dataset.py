"""A data set's samples: in memory if they are few and always the same, otherwise streamed."""

from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.inputs import FIXED
from edgekd.data.npz import npy_bytes
from edgekd.data.probe import PROBED, identity, probe, spread
from edgekd.data.reading import SampleReader
from edgekd.data.samples import Samples
from edgekd.data.source import samples_of, targets_of
from edgekd.data.streamed import Streamed, default_workers
from edgekd.data.tasks import Task
from edgekd.errors import InputError
from edgekd.store import cache_folder, write_beside

LISTED = ("targets", "labels")
"""Attributes under which torchvision's data sets, and those written like them, list all labels."""


@dataclass(frozen=True)
class How:
    """How samples are read: `stream` always or never, by default if a part has more than
    `memory_gb` or draws its samples at random; `workers` processes read ahead."""

    stream: bool | None = None
    memory_gb: float = 1.0
    workers: int | None = None


AS_FITS = How()


def samples_from(dataset: Any, where: str, task: Task, how: How) -> Samples:
    """The samples of a map-style data set. `InputError` names the first that is wrong."""
    if not isinstance(dataset, Sized):
        raise InputError("the Dataset has no length", where=where, allowed="a map-style Dataset")
    count = len(dataset)
    if not count:
        raise InputError("no samples", where=where)
    reader = SampleReader(dataset, where)
    found = probe(reader, count)
    reader = replace(reader, form=found.form)
    workers = default_workers() if how.workers is None else how.workers
    stream = Streamed(reader, torch.arange(count), "", found.random, workers, found.seconds)
    fits = found.bytes * count <= how.memory_gb * 1e9
    if how.stream is False or (fits and not found.random and how.stream is None):
        return _in_memory(stream, where, task)
    named = replace(stream, identity=identity(reader, count))
    return Samples(named, targets_of(_targets(named), task, where), task=task)


def _in_memory(stream: Streamed, where: str, task: Task) -> Samples:
    """All samples, written batch by batch into tensors of the final size."""
    x, y = stream.held()
    return samples_of(x, y, where, task)


def _targets(stream: Streamed) -> Tensor:
    """All targets (N, ...): those that the data set lists, those of an earlier run, or those of all
    samples, each of which is read and checked for them."""
    listed = _listed(stream)
    if listed is not None:
        return listed
    path = cache_folder() / "targets" / f"{stream.identity[:24]}.npy"
    if path.is_file():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    y = stream.targets()
    write_beside(path, npy_bytes(y.numpy()))
    return y


def _listed(stream: Streamed) -> Tensor | None:
    """The labels that the data set has as a list, if they are those of a few samples."""
    dataset, count = stream.reader.dataset, len(stream)
    values = next((getattr(dataset, name) for name in LISTED if hasattr(dataset, name)), None)
    try:
        listed = torch.as_tensor(values) if values is not None else None
    except (TypeError, ValueError, RuntimeError):
        return None
    if listed is None or len(listed) != count or listed.is_floating_point():
        return None
    few = spread(count, PROBED)
    _, y = stream.reader.batch([(FIXED, row) for row in few])
    return listed.long() if torch.equal(listed[few].to(y.dtype), y) else None
