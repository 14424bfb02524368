"""A data set's samples: in memory if they are few and always the same, otherwise streamed."""

from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.inputs import FIXED, PLAIN, AsSeen, Held
from edgekd.data.npz import npy_bytes
from edgekd.data.prepare import Prepare, adapted
from edgekd.data.probe import PROBED, identity, probe, spread
from edgekd.data.reading import SampleReader, Transform
from edgekd.data.samples import Samples
from edgekd.data.source import samples_of, targets_of
from edgekd.data.streamed import Streamed, default_workers
from edgekd.data.tasks import Task
from edgekd.errors import InputError
from edgekd.store import cache_folder, write_beside
from edgekd.values.tree import Tree, one

LISTED = ("targets", "labels")
"""Attributes under which torchvision's data sets, and those written like them, list all labels."""


@dataclass(frozen=True)
class How:
    """How samples are read: `stream` always or never, by default if a part has more than
    `memory_gb` or draws its samples at random; `workers` processes read ahead. `prepare` is what
    is done to each raw input, `seen` what is done to each batch; `draws` says that a transform
    changes training inputs."""

    stream: bool | None = None
    memory_gb: float = 1.0
    workers: int | None = None
    prepare: Prepare | None = None
    seen: AsSeen = PLAIN
    draws: bool = False


AS_FITS = How()


def samples_from(dataset: Any, where: str, task: Task, how: How = AS_FITS) -> Samples:
    """The samples of a map-style data set. `InputError` names the first that is wrong."""
    if not isinstance(dataset, Sized):
        raise InputError("the Dataset has no length", where=where, allowed="a map-style Dataset")
    count = len(dataset)
    if not count:
        raise InputError("no samples", where=where)
    reader = SampleReader(dataset, where, prepare=how.prepare)
    form = reader.target_form()
    task = task if form is None else task.with_form(form, where)
    stream = _streamed(replace(reader, targets=form), how)
    fits = stream.stored_bytes * count <= how.memory_gb * 1e9
    if how.stream is False or (fits and not stream.random and how.stream is None):
        x, y = stream.held()
        held = samples_of(x, y, where, task)
        return Samples(Held(x, how.seen), held.y, task=task)
    named = replace(stream, identity=identity(stream.reader, count))
    return Samples(named, targets_of(_targets(named), task, where), task=task)


def _streamed(reader: SampleReader, how: How) -> Streamed:
    """All samples of a reader, whose cost and form a few of them tell."""
    found = probe(reader, len(reader))
    workers = default_workers() if how.workers is None else how.workers
    return Streamed(
        replace(reader, form=found.form),
        torch.arange(len(reader)),
        random=found.random,
        workers=workers,
        seconds=found.seconds,
        stored_bytes=found.bytes,
        seen=how.seen,
    )


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Samples in memory as a map-style data set."""

    tree: Tree
    y: Tensor
    fingerprint: str

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> tuple[Tree, Tensor]:
        return one(self.tree, row), self.y[row]


def prepared(samples: Samples, where: str, how: How) -> Samples:
    """Samples that are in memory, preprocessed as a data set's would be."""
    if how.prepare is None and how.seen == PLAIN:
        return samples
    assert isinstance(samples.inputs, Held)
    tree = samples.inputs.tree
    if how.prepare is None:
        return Samples(Held(tree, how.seen), samples.y, samples.ids, samples.paired, samples.task)
    return samples_from(HeldRows(tree, samples.y, samples.sha256), where, samples.task, how)


def settled(samples: Samples, how: How) -> Samples:
    """Samples that are always read with the same draw, in memory if they fit."""
    inputs = samples.inputs
    if not isinstance(inputs, Streamed) or how.stream or how.memory_gb == 0:
        return samples
    if inputs.stored_bytes * len(inputs) > how.memory_gb * 1e9 or not len(inputs):
        return samples
    x, _ = inputs.held()
    return Samples(Held(x, inputs.seen), samples.y, samples.ids, samples.paired, samples.task)


def transformed(samples: Samples, transform: Transform, where: str, how: How) -> Samples:
    """Training samples whose inputs change at random each time they are drawn. `InputError` if the
    transform fails on one of a few samples, or gives another shape."""
    change = adapted(transform)
    if isinstance(samples.inputs, Held):
        tree, seen = samples.inputs.tree, samples.inputs.seen
        rows = HeldRows(tree, samples.y, samples.sha256)
        reader = SampleReader(rows, where, transform=change)
        stream = _streamed(reader, replace(how, seen=seen))
    else:
        assert isinstance(samples.inputs, Streamed)
        reader = replace(samples.inputs.reader, transform=change)
        probe(reader, len(reader))
        stream = replace(samples.inputs, reader=reader)
    named = replace(stream, identity=identity(stream.reader, len(reader)), random=True)
    return Samples(named, samples.y, samples.ids, samples.paired, samples.task)


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
    if listed is None or len(listed) != count:
        return None
    few = spread(count, PROBED)
    _, y = stream.reader.batch([(FIXED, row) for row in few])
    same = y.shape == listed[few].shape and torch.equal(listed[few].to(y.dtype), y)
    return listed.to(y.dtype) if same else None
