"""What is drawn for the training samples: new in every epoch, or from a few fixed variants."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgekd.data.inputs import Pick
from edgekd.data.samples import Changes, Data
from edgekd.data.seeds import derive_seed, seeded_generator
from edgekd.values.tree import Tree

VIEWS = 0
"""The seed of the fixed variants: they belong to the data, so runs with other seeds share them."""

Reading = tuple[Tree, Tensor, Tree | None]
"""A batch: what the student sees, the targets, and what teachers see if that is another view."""


def fixed_views(data: Data) -> int:
    """How many fixed variants of the samples there are; 0 if every draw is new."""
    return data.augmentation.views if data.varies else 1


def read_view(data: Data, view: int, order: Sequence[Tensor]) -> Iterator[Reading]:
    """The fixed variant number `view` of the training samples at these positions, in batches."""
    changes = data.augmentation.draw(len(data.train), seeded_generator(VIEWS, "view", view))
    seed = derive_seed(VIEWS, "view", view)
    picks = [Pick(index, seed) for index in order]
    return _read(data, picks, [changes.at(index) for index in order])


def read_drawn(
    data: Data, seed: int, epoch: int, order: Sequence[Tensor], share: slice = slice(None)
) -> Iterator[Reading]:
    """New draws of the training samples at these positions, in batches.

    They depend on the seed, the epoch, the number of the batch and the sample. A process reads only
    its `share` of each batch, and gets what it would get if it read all.
    """
    generator = seeded_generator(seed, "augment", epoch)
    changes = [data.augmentation.draw(len(index), generator) for index in order]
    picks = [
        Pick(index[share], derive_seed(seed, "draw", epoch, number))
        for number, index in enumerate(order)
    ]
    kept = [torch.arange(len(index))[share] for index in order]
    return _read(data, picks, [all_.at(mine) for all_, mine in zip(changes, kept, strict=True)])


def shown_in_view(data: Data, view: int, size: int) -> Iterator[Tree]:
    """All training samples of a view as teachers see them, in order, `size` at a time."""
    order = torch.split(torch.arange(len(data.train)), size)
    for x, _, paired in read_view(data, view, order):
        yield x if paired is None else paired


def _read(data: Data, picks: Sequence[Pick], changes: Sequence[Changes]) -> Iterator[Reading]:
    paired = data.train.paired
    shown = None if paired is None else paired.read(picks)
    for change, (x, y) in zip(changes, data.train.read(picks), strict=True):
        x = change(x) if data.augmentation.active else x
        yield x, y, None if shown is None else next(shown)[0]
