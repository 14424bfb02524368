"""Samples in memory, as every source returns and every stage reads them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs (N, ...) in float32 and targets (N, ...), labels (N,) in int64 for classification, in
    a fixed order.

    `paired` (N, ...) is the teachers' view of each sample if it differs from the student's: the
    image that belongs to a sound, the sentence in another language. `ids` (N,) are the rows of the
    samples in their source's part (training or test), before any were held back; None if they are
    in the source's order. `task` says what the targets are.
    """

    x: Tensor
    y: Tensor
    ids: Tensor | None = None
    paired: Tensor | None = None
    task: Task = CLASSIFICATION

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order; the last one may be smaller."""
        return zip(torch.split(self.x, size), torch.split(self.y, size), strict=True)

    @property
    def shown(self) -> Tensor:
        """(N, ...) what teachers see: `paired` if there is such a view, otherwise the inputs."""
        return self.x if self.paired is None else self.paired

    @property
    def rows(self) -> Tensor:
        """(N,) int64: each sample's row in its source."""
        return torch.arange(len(self)) if self.ids is None else self.ids

    def take(self, index: Tensor) -> "Samples":
        """The samples at those positions, in that order, with their rows."""
        paired = None if self.paired is None else self.paired[index]
        return Samples(self.x[index], self.y[index], self.rows[index], paired, self.task)

    def some(self, count: int) -> "Samples":
        """Up to `count` of the samples, the same ones each time, in their order; drawn evenly,
        since the first samples of a set may all be of one class."""
        if count >= len(self):
            return self
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self.take(drawn[:count].sort().values)

    @cached_property
    def sha256(self) -> str:
        """The hash of inputs and targets, which stage keys depend on."""
        return sha256_of_tensors(self.x, self.y, *([] if self.paired is None else [self.paired]))


def sha256_of_tensors(*parts: Tensor) -> str:
    """The hash of their shapes, types and bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str((tuple(part.shape), part.dtype)).encode())
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Augmentation:
    """What training does to images: mirror half of them, shift each by up to `shift` pixels.

    With `views` above zero the random draws are fixed: every sample has that many variants, the
    same in every epoch, so that a teacher's logits for them can be computed once and cached.
    """

    flip: bool = False
    shift: int = 0
    views: int = 0

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self.flip or self.shift > 0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A changed copy of a batch (B, C, H, W)."""
        if self.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        if self.shift:
            x = _shifted(x, self.shift, generator)
        return x


def _shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    count, channels, height, width = x.shape
    padded = torch.nn.functional.pad(x, (most,) * 4)
    dy, dx = torch.randint(0, 2 * most + 1, (2, count, 1, 1, 1), generator=generator)
    rows = dy + torch.arange(height).view(1, 1, -1, 1)
    columns = dx + torch.arange(width).view(1, 1, 1, -1)
    samples = torch.arange(count).view(-1, 1, 1, 1)
    return padded[samples, torch.arange(channels).view(1, -1, 1, 1), rows, columns]


@dataclass(frozen=True)
class Data:
    """A task's samples: for training, for validation and for the report (test).

    `classes` is 0 if the task has none to count (regression).
    `training_rows` is how many training samples the source has, before `limit` and before any
    were held back for validation; `held_back` says whether validation was taken from them.
    """

    name: str
    train: Samples
    validation: Samples
    test: Samples
    classes: int
    augmentation: Augmentation = Augmentation()
    labels: tuple[str, ...] = ()
    training_rows: int | None = None
    held_back: bool = False

    @property
    def task(self) -> Task:
        """What outputs and targets mean."""
        return self.train.task

    @property
    def example(self) -> Tensor:
        """One real input with a batch of one."""
        return self.train.x[:1]

    @property
    def shown(self) -> Tensor:
        """The same sample as teachers see it."""
        return self.train.shown[:1]

    @cached_property
    def sha256(self) -> str:
        """The hash of everything that training and reporting depend on."""
        parts = [self.train.sha256, self.validation.sha256, self.test.sha256]
        meant = "" if self.task == CLASSIFICATION else repr(self.task)
        return hashlib.sha256(
            "".join([*parts, repr(self.augmentation), meant]).encode()
        ).hexdigest()
