"""A user's `DataLoader`: its data set and its workers; edgekd makes the batches by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from edgekd.data.structure import LABELS, tree_of
from edgekd.errors import InputError
from edgekd.values.tree import leaves, mapped


def unloaded(loader: "DataLoader[Any]", where: str) -> tuple[Any, int]:
    """The loader's data set, and how many workers it asks for.

    A `collate_fn` of the user's is applied to one sample at a time. A sampler that chooses or
    weights samples would be lost, so it is an `InputError`; so is a `collate_fn` of an iterable.
    """
    if isinstance(loader.dataset, IterableDataset):
        if loader.collate_fn not in (default_collate, None) and loader.batch_size is not None:
            raise InputError(
                "the collate_fn of a DataLoader over an iterable would not be used",
                where=where,
                allowed="the iterable itself, whose samples are (input, label) or dicts",
            )
        return loader.dataset, loader.num_workers
    if not isinstance(loader.sampler, RandomSampler | SequentialSampler):
        raise InputError(
            f"the DataLoader's {type(loader.sampler).__name__} would not be used",
            where=where,
            allowed="shuffle = True or False",
            hint="sampler = 'balanced' under [data] weights classes; a Subset chooses samples",
        )
    if loader.collate_fn in (default_collate, None):
        return loader.dataset, loader.num_workers
    return Collated(loader.dataset, loader.collate_fn), loader.num_workers


@dataclass(frozen=True, eq=False)
class Collated:
    """A data set whose samples are batches of one that the user's own function collates."""

    dataset: Any
    collate: Callable[[list[Any]], Any]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        batch = self.collate([self.dataset[row]])
        if isinstance(batch, dict) or hasattr(batch, "keys"):
            parts = {key: batch[key] for key in batch.keys()}  # noqa: SIM118 - HF's BatchEncoding
            label = next((parts.pop(name) for name in LABELS if name in parts), None)
        else:
            parts, label = batch
        x = mapped(lambda leaf: leaf[0], tree_of(parts, f"sample {row}"))
        x = leaves(x)[0] if isinstance(parts, dict) and len(parts) == 1 else x
        return x, None if label is None else label[0]
