"""Samples, as every source returns and every stage reads them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgekd.data.inputs import FIXED, Held, Inputs, Pick, tensor_bytes
from edgekd.data.tasks import NO_LABEL, Task
from edgekd.data.tasks.classification import CLASSIFICATION, Classification
from edgekd.values.tree import Tree


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs, a tree of tensors (N, ...), and targets (N, ...), labels (N,) in int64 for
    classification, in a fixed order.

    `inputs` are in memory (a tree is taken as such) or read when they are needed; the targets are
    always in memory. `paired` is the teachers' view of each sample if it differs from the
    student's: the image that belongs to a sound, the sentence in another language. `ids` (N,) are
    the rows of the samples in their source's part (training or test), before any were held back;
    None if they are in the source's order. `task` says what the targets are.
    """

    inputs: Inputs
    y: Tensor
    ids: Tensor | None
    paired: Inputs | None
    task: Task

    def __init__(
        self,
        inputs: Inputs | Tree,
        y: Tensor,
        ids: Tensor | None = None,
        paired: Inputs | Tree | None = None,
        task: Task = CLASSIFICATION,
    ) -> None:
        held = None if paired is None else _inputs(paired)
        for name, value in zip(FIELDS, (_inputs(inputs), y, ids, held, task), strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def x(self) -> Tree:
        """All inputs (N, ...) in memory. Few samples (`first`, `some`) may be asked for it; what
        reads a whole part goes through `batches` or `read`."""
        return self.inputs.whole()

    def batches(self, size: int) -> Iterator[tuple[Tree, Tensor]]:
        """Inputs and targets in order; the last batch may be smaller."""
        return zip(self.inputs.chunks(size), torch.split(self.y, size), strict=True)

    def read(self, picks: Sequence[Pick]) -> Iterator[tuple[Tree, Tensor]]:
        """Inputs and targets of each pick, in order; those of a stream are read ahead."""
        for pick, (x, y) in zip(picks, self.inputs.read(picks), strict=True):
            yield x, self.y.index_select(0, pick.index) if y is None else y.to(self.y.dtype)

    def gather(self, index: Tensor, seed: int = FIXED) -> tuple[Tree, Tensor]:
        """Inputs and targets at these positions, in that order."""
        return next(self.read([Pick(index, seed)]))

    @property
    def as_shown(self) -> "Samples":
        """The same samples as teachers see them: with their paired view, if there is one."""
        if self.paired is None:
            return self
        return Samples(self.paired, self.y, self.ids, None, self.task)

    @property
    def shown(self) -> Tree:
        """(N, ...) what teachers see, in memory: for few samples, as `x`."""
        return self.as_shown.x

    @property
    def rows(self) -> Tensor:
        """(N,) int64: each sample's row in its source."""
        return torch.arange(len(self)) if self.ids is None else self.ids

    def take(self, index: Tensor) -> "Samples":
        """The samples at those positions, in that order, with their rows."""
        paired = None if self.paired is None else self.paired.chosen(index)
        inputs = self.inputs.chosen(index)
        return Samples(inputs, self.y[index], self.rows[index], paired, self.task)

    def relabelled(self, y: Tensor) -> "Samples":
        """The same inputs with other targets (N, ...), in memory; labels are a classification's."""
        return Samples(self.inputs.without_targets(), y, self.ids)

    def first(self, count: int) -> "Samples":
        """Up to `count` of the samples: those at the beginning."""
        return self.take(torch.arange(min(count, len(self))))

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
        digest = hashlib.sha256()
        paired = [] if self.paired is None else self.paired.hashed()
        for parts in (self.inputs.hashed(), tensor_bytes(self.y), paired):
            for part in parts:
                digest.update(part)
        return digest.hexdigest()


FIELDS = ("inputs", "y", "ids", "paired", "task")


def _inputs(given: Inputs | Tree) -> Inputs:
    return given if isinstance(given, Inputs) else Held(given)


def is_image(example: Tree) -> bool:
    """Whether a batch of one is a single tensor (1, C, H, W)."""
    return isinstance(example, Tensor) and example.ndim == 4


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

    def draw(self, count: int, generator: torch.Generator) -> "Changes":
        """The random changes of `count` images."""
        mirrored = torch.rand(count, generator=generator) < 0.5 if self.flip else None
        span = 2 * self.shift + 1
        offsets = torch.randint(0, span, (2, count), generator=generator) if self.shift else None
        return Changes(self.shift, mirrored, offsets)


@dataclass(frozen=True, eq=False)
class Changes:
    """The changes drawn for N images: `mirrored` (N,) or not, and `offsets` (2, N) of rows and
    columns, from 0 to twice `most`, in an image padded by `most`; None for no such change."""

    most: int
    mirrored: Tensor | None
    offsets: Tensor | None

    def at(self, index: Tensor) -> "Changes":
        """Those of the images at these positions."""
        mirrored = None if self.mirrored is None else self.mirrored[index]
        return Changes(
            self.most, mirrored, None if self.offsets is None else self.offsets[:, index]
        )

    def __call__(self, x: Tensor) -> Tensor:
        """The images (N, C, H, W), or (N, H, W, C) of bytes, changed; the same tensor if nothing
        changes."""
        if x.dtype == torch.uint8:
            return self._changed(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        return self._changed(x)

    def _changed(self, x: Tensor) -> Tensor:
        if self.mirrored is not None:
            x = torch.where(self.mirrored.view(-1, 1, 1, 1), x.flip(3), x)
        return x if self.offsets is None else self._shifted(x, self.offsets)

    def _shifted(self, x: Tensor, offsets: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        padded = torch.nn.functional.pad(x, (self.most,) * 4)
        dy, dx = offsets.view(2, count, 1, 1, 1)
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
    `sampler` is how an epoch's training samples are chosen: each once, or "balanced" over classes.
    `notes` are for the plan.
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
    sampler: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What outputs and targets mean."""
        return self.train.task

    @property
    def unlabelled(self) -> int:
        """How many training samples have no label, where each has one class."""
        if not isinstance(self.task, Classification):
            return 0
        return int((self.train.y == NO_LABEL).sum())

    @property
    def baked(self) -> Callable[[Tensor], Tensor] | None:
        """What networks do to each input by themselves: the arithmetic of preprocessing that is
        baked into them; None if samples come normalized."""
        seen = self.train.inputs.seen
        return seen.of_raw if seen.raw else None

    @property
    def varies(self) -> bool:
        """Whether training samples are changed at random when they are read."""
        return self.augmentation.active or self.train.inputs.random

    @property
    def example(self) -> Tree:
        """One real input, with a batch of one."""
        return self.train.first(1).x

    @property
    def shown(self) -> Tree:
        """The same sample as teachers see it."""
        return self.train.first(1).shown

    @cached_property
    def sha256(self) -> str:
        """The hash of everything that training and reporting depend on."""
        parts = [self.train.sha256, self.validation.sha256, self.test.sha256]
        meant = "" if self.task == CLASSIFICATION else repr(self.task)
        return hashlib.sha256(
            "".join([*parts, repr(self.augmentation), meant, self.sampler or ""]).encode()
        ).hexdigest()
