"""What a few samples tell about a data set: form, cost, randomness, and an identity by content."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from edgekd.data.draws import callers_randomness
from edgekd.data.inputs import FIXED, PLAIN, tensor_bytes
from edgekd.data.reading import Form, SampleReader, form_of
from edgekd.errors import InputError
from edgekd.values.tree import Tree, leaves, named_leaves

PROBED = 8
"""Samples that are drawn three times."""

IDENTIFIED = 128
"""Samples whose content stands for the whole set, spread evenly over it."""

OTHER = 1
"""The seed of a draw that is compared with `FIXED`."""


@dataclass(frozen=True)
class Probe:
    """A sample's form, its bytes as stored, the seconds that it takes, and whether draws differ."""

    form: Form
    bytes: int
    seconds: float
    random: bool


def probe(reader: SampleReader, count: int) -> Probe:
    """Read a few samples. `InputError` if one isn't a sample, has another form than the first, or
    differs between two reads with the same seed."""
    rows, random = spread(count, PROBED), False
    with callers_randomness():
        first, _ = reader.sample(FIXED, 0)
        checked = replace(reader, form=form_of(first))
        started = time.perf_counter()
        fixed = [checked.sample(FIXED, row)[0] for row in rows]
        seconds = (time.perf_counter() - started) / len(rows)
        for row, x in zip(rows, fixed, strict=True):
            drawn = checked.sample(OTHER, row)[0]
            if not same(checked.sample(OTHER, row)[0], drawn):
                raise _unseeded(reader.where, row)
            random = random or not same(x, drawn)
    stored = sum(leaf.nbytes for leaf in leaves(first))
    return Probe(form_of(first), stored, seconds, random)


def _unseeded(where: str, row: int) -> InputError:
    return InputError(
        f"sample {row} differs between two reads with the same seed",
        where=where,
        allowed="random numbers from torch, numpy or random, or from a generator that is an "
        "attribute of the data set",
        hint="a run that was killed could not resume with the same samples",
    )


def same(x: Tree, other: Tree) -> bool:
    """Whether networks see two samples as the same."""
    pairs = zip(leaves(PLAIN(x)), leaves(PLAIN(other)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def spread(count: int, most: int) -> list[int]:
    """Up to `most` rows, evenly over `count`."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long().tolist()


def identity(reader: SampleReader, count: int) -> str:
    """A hash that stands for the data set's content: its `fingerprint` if it has one, otherwise
    the samples of `IDENTIFIED` rows; its length and type in any case, and a few draws."""
    digest = hashlib.sha256()
    for part in _identifying(reader, count):
        digest.update(part)
    return digest.hexdigest()


def _identifying(reader: SampleReader, count: int) -> Iterator[bytes]:
    dataset: Any = reader.dataset
    kind = type(dataset)
    yield f"{kind.__module__}.{kind.__qualname__} {count}".encode()
    named = getattr(dataset, "fingerprint", getattr(dataset, "_fingerprint", None))
    few = spread(count, PROBED)
    with callers_randomness():
        if isinstance(named, str):
            yield named.encode()
        else:
            yield from _content(reader, FIXED, spread(count, IDENTIFIED))
        yield from _content(reader, OTHER, few)


def _content(reader: SampleReader, seed: int, rows: Sequence[int]) -> Iterator[bytes]:
    for row in rows:
        x, y = reader.sample(seed, row)
        for name, leaf in named_leaves(x, "").items():
            yield name.encode()
            yield from tensor_bytes(leaf.reshape(1, *leaf.shape))
        yield from tensor_bytes(y.reshape(1, *y.shape))
