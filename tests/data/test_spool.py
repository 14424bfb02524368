"""Iterable data sets: read once onto the disk, then like any other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import IterableDataset

from edgekd.data.dataset import How
from edgekd.data.factory import read_parts
from edgekd.data.samples import Samples
from edgekd.data.streamed import Streamed
from edgekd.errors import InputError


class Counting(IterableDataset):
    """Samples with two inputs of different types."""

    def __init__(self, count: int = 30, length: int = 30, odd: int | None = None) -> None:
        self.count, self.length, self.odd = count, length, odd

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[object]:
        for number in range(self.count):
            size = 3 if number == self.odd else 2
            x = {"ids": torch.full((size,), number), "dense": torch.rand(3) + number}
            yield x, number % 3


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))


def read(dataset: object, **how: object) -> Samples:
    parts = {"train": dataset, "test": dataset}
    return read_parts(parts, "the data", "data", None, How(workers=0, **how)).train


def test_an_iterable_with_a_length_is_read_in_any_order(tmp_path) -> None:
    samples = read(Counting(), stream=True)
    assert isinstance(samples.inputs, Streamed)
    x, y = samples.gather(torch.tensor([17, 4]))
    assert x["ids"].tolist() == [[17, 17], [4, 4]]
    assert x["dense"].floor().tolist() == [[17.0] * 3, [4.0] * 3]
    assert y.tolist() == [2, 1]
    assert len(list((tmp_path / "iterables").iterdir())) == 1, "both parts share their files"


def test_its_random_numbers_are_drawn_once_and_alike_in_every_run() -> None:
    first, again = read(Counting()), read(Counting(), stream=True)
    assert torch.equal(first.x["dense"], again.x["dense"])
    assert again.sha256 == read(Counting(), stream=True).sha256


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Counting(20), "the iterable ends after 20 samples, but its length is 30"),
        (Counting(odd=7), r"sample 7 has shape ids \(3,\) int64"),
    ],
)
def test_an_iterable_that_is_wrong_is_refused(dataset, message, tmp_path) -> None:
    with pytest.raises(InputError, match=message):
        read(dataset)
    assert not list((tmp_path / "iterables").iterdir()), "nothing is left behind"


def test_an_iterable_without_a_length_is_refused_with_the_way_out() -> None:
    class Endless(IterableDataset):
        def __iter__(self) -> Iterator[object]:
            while True:
                yield torch.zeros(2), 0

    with pytest.raises(InputError) as caught:
        read(Endless())
    assert "the Dataset has no length" in str(caught.value)
    assert "define __len__" in caught.value.hint
