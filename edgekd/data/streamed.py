"""Inputs that are read when they are needed, by worker processes that read ahead."""

import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from edgekd.data.inputs import FIXED, PLAIN, AsSeen, Pick, Reading
from edgekd.data.limits import Limits, narrowed
from edgekd.data.reading import Batch, Key, SampleReader, collated, joined
from edgekd.errors import EdgekdError, ToolError
from edgekd.values.tree import Tree, leaves, mapped, rows

AHEAD = 2
"""Batches that each worker has ready."""

WORTH_WORKERS_S = 0.5
"""Reading that takes less than this in one process is not worth starting workers for."""

HANGS_S = 600
"""A batch that isn't there after this time never comes."""

MOST_WORKERS = 8

TOGETHER = 64
"""Samples that are read at once where no batch size is asked for."""


@dataclass(frozen=True, eq=False)
class Streamed:
    """Rows (N,) of a data set, read when they are needed.

    `identity` is a hash of the data set, `random` whether draws with other seeds differ,
    `own_targets` whether its targets count. `workers` read ahead where there is enough to read,
    judged by the `seconds` that a sample takes (`stored_bytes` as it is stored); results don't
    depend on their number. Nothing is held but the batches in flight.
    """

    reader: SampleReader
    index: Tensor
    identity: str = ""
    random: bool = False
    workers: int = 0
    seconds: float = 0.0
    stored_bytes: int = 0
    own_targets: bool = True
    seen: AsSeen = PLAIN

    def __len__(self) -> int:
        return len(self.index)

    def read(self, picks: Sequence[Pick]) -> Iterator[Reading]:
        """What each pick asks for, in order. `InputError` names a sample that can't be read,
        `ToolError` says that a worker died."""
        for x, y in self._batches(picks):
            yield self.seen(x), y if self.random and self.own_targets else None

    def chunks(self, size: int) -> Iterator[Tree]:
        """In order, `size` at a time, as they are without a draw."""
        for x, _ in self._batches(self._all(size)):
            yield self.seen(x)

    def targets(self) -> Tensor:
        """All targets (N, ...); every sample is read and checked for them."""
        checking = replace(self, reader=replace(self.reader, targets_only=True))
        return joined([y for _, y in checking._batches(self._all())], self.reader.where)

    def held(self) -> tuple[Tree, Tensor]:
        """All inputs as they are stored, bytes as bytes, and all targets; in memory once."""
        stored, y, start = None, [], 0
        for x, targets in self._batches(self._all()):
            if stored is None:
                stored = mapped(lambda leaf: leaf.new_empty((len(self), *leaf.shape[1:])), x)
            for place, leaf in zip(leaves(stored), leaves(x), strict=True):
                place[start : start + len(leaf)].copy_(leaf)
            y.append(targets)
            start += len(targets)
        return stored, joined(y, self.reader.where)

    def chosen(self, index: Tensor) -> "Streamed":
        """The rows at these positions."""
        return replace(self, index=self.index[index])

    def within(self, limits: Mapping[str, Limits]) -> "Streamed":
        """The same rows, of which reading one with an integer outside these limits raises
        `InputError`, beside the limits that there are already."""
        reader = replace(self.reader, limits=narrowed(self.reader.limits, limits))
        return replace(self, reader=reader)

    def whole(self) -> Tree:
        """All of them, as networks get them: for few samples only."""
        if len(self):
            return self.seen(self.held()[0])
        return rows(self.seen(self.reader.batch([(FIXED, 0)])[0]), slice(0))

    def without_targets(self) -> "Streamed":
        """The same inputs for targets of the caller's."""
        return replace(self, own_targets=False)

    def hashed(self) -> Iterator[bytes]:
        """The data set's hash and the rows."""
        yield self.identity.encode()
        yield self.index.numpy().tobytes()
        if self.seen != PLAIN:
            yield repr(self.seen).encode()

    def _all(self, size: int = TOGETHER) -> list[Pick]:
        return [Pick(part) for part in torch.split(torch.arange(len(self)), size)]

    def _batches(self, picks: Sequence[Pick]) -> Iterator[Batch]:
        keys = _Keys(picks, self.index)
        count = sum(len(pick.index) for pick in picks)
        if self.workers and len(picks) > 1 and self.seconds * count > WORTH_WORKERS_S:
            yield from _from_workers(self.reader, keys, self.workers)
        else:
            for batch in keys:
                yield self.reader.batch(batch)


@dataclass(frozen=True, eq=False)
class _Keys:
    """The keys of each pick, made one pick at a time."""

    picks: Sequence[Pick]
    index: Tensor

    def __len__(self) -> int:
        return len(self.picks)

    def __iter__(self) -> Iterator[list[Key]]:
        for pick in self.picks:
            yield [(pick.seed, row) for row in self.index[pick.index].tolist()]


def _from_workers(reader: SampleReader, keys: Iterable[list[Key]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        reader,
        batch_sampler=keys,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=partial(_collated_or_error, where=reader.where),
        pin_memory=torch.cuda.is_available(),
        timeout=HANGS_S,
        generator=torch.Generator(),  # otherwise it draws from the caller's
    )
    with warnings.catch_warnings():  # a fork of a process with threads is safe for what workers do
        warnings.simplefilter("ignore", DeprecationWarning)
        batches = iter(loader)
    _name_dead_workers()
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            raise _dead_worker(error, reader.where) from error
        if isinstance(batch, EdgekdError):
            raise batch
        yield batch


def _name_dead_workers() -> None:
    """PyTorch's handler of a child's end raises a RuntimeError wherever the main thread happens to
    be: make that a `ToolError`, too."""
    handler = signal.getsignal(signal.SIGCHLD)
    if not callable(handler) or hasattr(handler, "names_workers"):
        return
    if threading.current_thread() is not threading.main_thread():
        return

    def named(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        except RuntimeError as error:
            raise _dead_worker(error, "data") from error

    named.names_workers = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, named)


def _collated_or_error(samples: list[Any], where: str) -> Any:
    try:
        return collated(samples, where)
    except EdgekdError as error:
        return error


def _dead_worker(error: RuntimeError, where: str) -> ToolError:
    reason = str(error).strip().splitlines()[0]
    return ToolError(
        f"a worker process that reads samples stopped: {reason}",
        where=where,
        hint="set data.workers = 0 to read in the main process, where the error shows; a worker "
        "that was killed may have run out of memory or of shared memory (/dev/shm)",
    )


def default_workers() -> int:
    """How many processes read ahead if the recipe doesn't say."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))
