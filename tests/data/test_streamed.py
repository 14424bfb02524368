"""Samples that are read when they are needed: the same bits however they are read."""

import os
import random
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, get_worker_info

from edgekd.data.dataset import How, samples_from
from edgekd.data.factory import read_parts
from edgekd.data.inputs import Held, Pick
from edgekd.data.reading import SampleReader
from edgekd.data.samples import Samples
from edgekd.data.streamed import Streamed
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import EdgekdError, InputError, ToolError

STREAM = How(stream=True, workers=0)


class Noisy(Dataset):
    """Images with noise from every generator that transforms draw from."""

    def __init__(self, count: int = 40) -> None:
        self.count, self.generator = count, np.random.default_rng()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(1) + float(np.random.rand()) + random.random() + self.generator.random()
        return torch.full((1, 4, 4), float(index)) + noise, index % 4


class Plain(Noisy):
    """The same images each time."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 4, 4), float(index)), index % 4


def samples(dataset: object, how: How = STREAM) -> Samples:
    return samples_from(dataset, "data: train", CLASSIFICATION, how)


def refusal(dataset: object, how: How = STREAM) -> EdgekdError:
    with pytest.raises(EdgekdError) as caught:
        samples(dataset, how)
    return caught.value


def with_workers(chosen: Samples, workers: int) -> Samples:
    """The same samples, read by that many processes however few they are."""
    assert isinstance(chosen.inputs, Streamed)
    return Samples(replace(chosen.inputs, workers=workers, seconds=1.0), chosen.y)


def test_a_small_set_is_held_in_memory_and_a_random_or_large_one_is_streamed() -> None:
    assert isinstance(samples(Plain(), How()).inputs, Held)
    assert isinstance(samples(Noisy(), How()).inputs, Streamed)
    assert isinstance(samples(Plain(), How(memory_gb=2e-6)).inputs, Streamed)
    assert isinstance(samples(Noisy(), How(stream=False)).inputs, Held)


def test_streamed_samples_are_those_in_memory() -> None:
    held, streamed = samples(Plain(), How()), samples(Plain())
    assert torch.equal(held.x, streamed.x)
    assert torch.equal(held.y, streamed.y)
    index = torch.tensor([7, 3, 3])
    for part, other in ((held, streamed), (held.take(index), streamed.take(index))):
        for (x, y), (x2, y2) in zip(part.batches(2), other.batches(2), strict=True):
            assert torch.equal(x, x2)
            assert torch.equal(y, y2)
    assert streamed.first(0).x.shape == (0, 1, 4, 4)
    assert streamed.some(5).rows.tolist() == held.some(5).rows.tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_draws_depend_on_seed_and_sample_alone_whatever_the_number_of_workers(workers: int) -> None:
    streamed = samples(Noisy())
    picks = [
        Pick(torch.tensor([5, 9]), 3),
        Pick(torch.tensor([9, 1]), 3),
        Pick(torch.tensor([9]), 4),
    ]
    alone = [x for x, _ in streamed.read(picks)]
    spread = [x for x, _ in with_workers(streamed, workers).read(picks)]
    assert all(torch.equal(a, b) for a, b in zip(alone, spread, strict=True))
    assert torch.equal(alone[0][1], alone[1][0])
    assert not torch.equal(alone[1][0], alone[2][0]), "another seed draws anew"
    assert torch.equal(streamed.first(3).x, streamed.first(3).x)


def test_reading_leaves_the_callers_random_numbers_alone() -> None:
    streamed = samples(Noisy())
    for chosen in (streamed, with_workers(streamed, 1)):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        list(chosen.batches(16))
        drawn = float(torch.rand(1)), float(np.random.rand()), random.random()
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        assert drawn == (float(torch.rand(1)), float(np.random.rand()), random.random())


def test_the_hash_follows_content_draws_and_rows() -> None:
    streamed = samples(Plain())
    assert samples(Plain()).sha256 == streamed.sha256
    hashes = {part.sha256 for part in (streamed, streamed.first(39), samples(Noisy()))}
    assert len(hashes) == 3

    class Darker(Plain):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            x, y = super().__getitem__(index)
            return x - 1, y

    Darker.__qualname__ = Plain.__qualname__
    assert samples(Darker()).sha256 != streamed.sha256


def test_a_fingerprint_stands_for_the_content() -> None:
    class Named(Plain):
        fingerprint = "v1"

    first = samples(Named()).sha256
    Named.fingerprint = "v2"
    assert samples(Named()).sha256 != first


def test_listed_labels_are_used_where_they_are_those_of_the_samples() -> None:
    class Listed(Plain):
        read = 0
        targets = tuple(index % 4 for index in range(40))

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            Listed.read += 1
            return super().__getitem__(index)

    class Remapped(Listed):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            x, y = super().__getitem__(index)
            return x, 3 - y

    Listed.fingerprint = "listed"
    assert samples(Listed()).y.tolist() == list(Listed.targets)
    assert Listed.read <= 60
    assert samples(Remapped()).y.tolist() == [3 - y for y in Listed.targets]


def test_targets_are_gathered_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    first = samples(Plain()).y
    monkeypatch.setattr(Streamed, "targets", lambda self: pytest.fail("read again"))
    assert torch.equal(samples(Plain()).y, first)


def test_relabelled_samples_keep_their_own_labels() -> None:
    zeros = samples(Noisy()).relabelled(torch.zeros(40, dtype=torch.int64))
    assert zeros.gather(torch.tensor([3]), seed=5)[1].tolist() == [0]


class Broken(Plain):
    """One sample, far from those that are probed, is wrong in some way."""

    def __init__(self, how: str) -> None:
        super().__init__(1001)
        self.how = how

    def __getitem__(self, index: int) -> object:
        x, y = super().__getitem__(index)
        if index != 77:
            return x, y
        if self.how == "dies":
            os._exit(3)
        if self.how == "raises":
            raise OSError("cannot identify image file")
        bad = torch.full_like(x, float("nan"))
        return {"nan": (bad, y), "shape": (x[0], y), "dict": ({"a": x}, y), "three": (x, y, y)}[
            self.how
        ]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "sample 77 can't be read: OSError: cannot identify image file"),
        ("nan", "NaN or infinity, in sample 77"),
        ("shape", "sample 77 has shape (4, 4) (allowed: (1, 4, 4), as sample 0 has)"),
        ("dict", "sample 77 has shape a (1, 4, 4) float32 (allowed: (1, 4, 4), as sample 0 has)"),
        ("three", "sample 77: is a tuple of 3"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_refused_by_its_number(
    how: str, message: str, workers: int, monkeypatch
) -> None:
    monkeypatch.setattr("edgekd.data.streamed.WORTH_WORKERS_S", 0.0)
    error = refusal(Broken(how), How(stream=True, workers=workers))
    assert isinstance(error, InputError)
    assert message in str(error)


def test_a_worker_that_dies_is_one_error_and_no_hang(monkeypatch) -> None:
    monkeypatch.setattr("edgekd.data.streamed.WORTH_WORKERS_S", 0.0)
    error = refusal(Broken("dies"), How(stream=True, workers=1))
    assert isinstance(error, ToolError)
    assert error.exit_code == 3
    assert "a worker process that reads samples stopped" in str(error)
    assert "data.workers = 0" in error.hint


class Mortal(Plain):
    """Kills the worker that reads it from row 200 on."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index >= 200 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def computed(stream: Streamed) -> None:
    for _ in stream.chunks(50):
        time.sleep(0.5)  # where the signal arrives


def test_a_worker_that_dies_while_the_network_computes_is_that_error_too() -> None:
    reader = SampleReader(Mortal(400), "the data: train")
    stream = Streamed(reader, torch.arange(400), workers=1, seconds=1.0)
    stopped = "a worker process that reads samples stopped"
    with pytest.raises(ToolError, match=stopped) as caught:
        computed(stream)
    assert "data.workers = 0" in caught.value.hint


def test_a_generator_that_cannot_be_seeded_is_refused() -> None:
    hidden = [np.random.default_rng()]

    class Hidden(Plain):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            x, y = super().__getitem__(index)
            return x + hidden[0].random(), y

    error = refusal(Hidden())
    assert "sample 0 differs between two reads with the same seed" in str(error)


def test_generators_inside_a_subset_are_seeded_too() -> None:
    part = samples(Subset(Noisy(), range(30)))
    index = torch.tensor([4])
    assert torch.equal(part.gather(index, 9)[0], part.gather(index, 9)[0])


def test_an_object_with_length_and_items_is_a_data_set() -> None:
    class Rows:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> dict[str, object]:
            if index >= 8:
                raise IndexError
            return {"pixels": np.full((1, 2, 2), index, np.uint8), "label": index % 2}

    source = read_parts({"train": Rows(), "test": Rows()}, "the data", "data")
    assert source.train.x[3].unique().tolist() == pytest.approx([3 / 255])
