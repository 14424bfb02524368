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

from edgekd.errors import InputError
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


@dataclass(frozen=True)
class AsSeen:
    """How a batch as it is stored becomes what networks take: bytes become float32, images (three
    dimensions and up, with the samples') divided by 255, and those with channels (N, C, H, W)
    normalized by `mean` and `std`. With `raw`, images stay bytes, channels last (N, H, W, C)."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    raw: bool = False

    def __call__(self, tree: Tree) -> Tree:
        return mapped(self._leaf, tree)

    def _leaf(self, leaf: Tensor) -> Tensor:
        image = leaf.ndim == 4
        if image:
            self._check_channels(leaf.shape[1])
        if self.raw and image and leaf.dtype == torch.uint8:
            return leaf.permute(0, 2, 3, 1).contiguous()
        values = _without_bytes(leaf)
        if not image or not values.is_floating_point():
            return values
        if self.mean:
            values = values - torch.tensor(self.mean).view(1, -1, 1, 1)
        return values / torch.tensor(self.std).view(1, -1, 1, 1) if self.std else values

    def _check_channels(self, channels: int) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, channels):
                raise InputError(
                    f"{len(values)} values, but images have {channels} channels",
                    where=f"data.preprocess.{name}",
                    hint="channels = 'rgb' or 'gray' makes all images alike",
                )

    def of_raw(self, leaf: Tensor) -> Tensor:
        """What `raw` leaves to the network: an image of bytes (N, H, W, C) becomes what it would
        have been otherwise, by one multiplication and one addition."""
        if leaf.dtype != torch.uint8 or leaf.ndim != 4:
            return leaf.clone()
        std = torch.tensor(self.std or (1.0,)).view(1, -1, 1, 1)
        values = leaf.permute(0, 3, 1, 2).to(torch.float32) * (1 / (255 * std))
        if not self.mean:
            return values
        return values - torch.tensor(self.mean).view(1, -1, 1, 1) / std


PLAIN = AsSeen()


@runtime_checkable
class Inputs(Protocol):
    """Inputs of N samples, in a fixed order; `random` if draws with other seeds differ. `seen` is
    how a batch becomes what networks take."""

    @property
    def seen(self) -> AsSeen: ...

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
    """Inputs in memory: a tree of tensors (N, ...). Bytes stay bytes until a batch is `seen`."""

    tree: Tree
    seen: AsSeen = PLAIN

    @property
    def random(self) -> bool:
        """What is in memory stays as it is."""
        return False

    def __len__(self) -> int:
        return count(self.tree)

    def read(self, picks: Sequence[Pick]) -> Iterator[Reading]:
        """The rows of each pick; no draw changes them."""
        for pick in picks:
            yield self.seen(rows(self.tree, pick.index)), None

    def chunks(self, size: int) -> Iterator[Tree]:
        """In order, `size` at a time, without a copy where nothing is converted."""
        for start in range(0, max(len(self), 1), size):
            yield self.seen(rows(self.tree, slice(start, start + size)))

    def chosen(self, index: Tensor) -> "Held":
        """The rows at these positions."""
        return Held(rows(self.tree, index), self.seen)

    def whole(self) -> Tree:
        """The tree as networks get it."""
        return self.seen(self.tree)

    def without_targets(self) -> "Held":
        """Itself: there are none."""
        return self

    def hashed(self) -> Iterator[bytes]:
        """Shape, type and bytes of each leaf, after its name if it has one."""
        for name, leaf in named_leaves(self.tree, "").items():
            yield name.encode()
            yield from tensor_bytes(leaf)
        if self.seen != PLAIN:
            yield repr(self.seen).encode()


def _without_bytes(leaf: Tensor) -> Tensor:
    if leaf.dtype != torch.uint8:
        return leaf
    return leaf.float().div_(255) if leaf.ndim > 2 else leaf.float()


def tensor_bytes(tensor: Tensor) -> Iterator[bytes]:
    """What a tensor's hash is computed from: its shape and type, then its values, bytes in float32,
    a part at a time."""
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
