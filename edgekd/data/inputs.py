"""Where samples' inputs come from: a tree of tensors in memory, or a stream of what is read.

A reader asks for picks: positions with the seed of their draw. Inputs that a random transform
changes depend on the seed and the position alone, so that neither the order of reading, nor the
number of worker processes, nor a run that was killed and resumed changes a bit of them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from edgekd.values.tree import Tree, count, mapped, named_leaves, rows

FIXED = 0
"""The seed with which samples are read where no draw is meant: calibration, validation, test."""

CHUNK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Pick:
    """Positions (B,) int64 to read together, and the seed of their draws."""

    index: Tensor
    seed: int = FIXED


Reading = tuple[Tree, Tensor | None]
"""The inputs (B, ...) of a pick, and the targets (B, ...) of that draw; None where a draw doesn't
change the targets."""


@runtime_checkable
class Inputs(Protocol):
    """Inputs of N samples, in a fixed order; `random` if draws with other seeds differ."""

    @property
    def random(self) -> bool: ...

    def __len__(self) -> int: ...

    def read(self, picks: Sequence[Pick]) -> Iterator[Reading]:
        """What each pick asks for, in order."""

    def chunks(self, size: int) -> Iterator[Tree]:
        """The inputs without a draw, in order, `size` at a time; the last part may be smaller."""

    def chosen(self, index: Tensor) -> "Inputs":
        """The inputs at these positions, in that order."""

    def whole(self) -> Tree:
        """All of them in memory: for few samples only."""

    def without_targets(self) -> "Inputs":
        """The same inputs, whose draws have no targets of their own."""

    def hashed(self) -> Iterable[bytes]:
        """What their hash is computed from."""


@dataclass(frozen=True, eq=False)
class Held:
    """Inputs in memory: a tree of tensors (N, ...).

    Bytes stay bytes until a batch is read. Networks get them as float32: images (three dimensions
    and up, with the samples') divided by 255, tables with the values that they have.
    """

    tree: Tree

    @property
    def random(self) -> bool:
        """What is in memory stays as it is."""
        return False

    def __len__(self) -> int:
        return count(self.tree)

    def read(self, picks: Sequence[Pick]) -> Iterator[Reading]:
        """The rows of each pick; no draw changes them."""
        for pick in picks:
            yield as_read(rows(self.tree, pick.index)), None

    def chunks(self, size: int) -> Iterator[Tree]:
        """In order, `size` at a time, without a copy where nothing is converted."""
        for start in range(0, max(len(self), 1), size):
            yield as_read(rows(self.tree, slice(start, start + size)))

    def chosen(self, index: Tensor) -> "Held":
        """The rows at these positions."""
        return Held(rows(self.tree, index))

    def whole(self) -> Tree:
        """The tree as networks get it."""
        return as_read(self.tree)

    def without_targets(self) -> "Held":
        """Itself: there are none."""
        return self

    def hashed(self) -> Iterator[bytes]:
        """Shape, type and bytes of each leaf as networks get it, after its name if it has one."""
        for name, leaf in named_leaves(self.tree, "").items():
            yield name.encode()
            yield from tensor_bytes(leaf)


def as_read(tree: Tree) -> Tree:
    """The tree as networks get it: bytes become float32."""
    return mapped(_without_bytes, tree)


def _without_bytes(leaf: Tensor) -> Tensor:
    if leaf.dtype != torch.uint8:
        return leaf
    return leaf.float().div_(255) if leaf.ndim > 2 else leaf.float()


def tensor_bytes(tensor: Tensor) -> Iterator[bytes]:
    """What a tensor's hash is computed from: its shape and type, then its values as networks get
    them, converted a part at a time."""
    dtype = torch.float32 if tensor.dtype == torch.uint8 else tensor.dtype
    yield str((tuple(tensor.shape), dtype)).encode()
    for part in torch.split(tensor, CHUNK):
        yield _without_bytes(part).contiguous().numpy().tobytes()


def sha256_of_tensors(*parts: Tree) -> str:
    """The hash of trees in memory: names, shapes, types and bytes of their leaves."""
    digest = hashlib.sha256()
    for part in parts:
        for piece in Held(part).hashed():
            digest.update(piece)
    return digest.hexdigest()
