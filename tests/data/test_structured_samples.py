"""Samples whose inputs are dicts and tuples of tensors, from objects, factories and files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from edgekd.data.factory import read_parts
from edgekd.data.inputs import Held, Pick
from edgekd.data.samples import Samples
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import evaluate, predict


class Sentences(Dataset):
    """Token ids with a mask, labelled as Hugging Face's tokenized data sets are."""

    def __init__(self, count: int = 12, longer: int | None = None) -> None:
        self.count, self.longer = count, longer

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, object]:
        length = 6 if index == self.longer else 5
        ids = np.full(length, index, np.int32)
        return {"input_ids": ids, "mask": ids % 2 == 0, "labels": index % 3}


def read(train: object, test: object | None = None, **table: object) -> Samples:
    parts = {"train": train, "test": test or train, **table}
    return read_parts(parts, "the data", "data").train


def refusal(train: object) -> EdgekdError:
    with pytest.raises(InputError) as caught:
        read(train)
    return caught.value


def test_a_dict_sample_becomes_named_inputs_that_keep_their_types() -> None:
    samples = read(Sentences())
    assert list(samples.x) == ["input_ids", "mask"]
    assert samples.x["input_ids"].dtype == torch.int64
    assert samples.x["mask"].dtype == torch.bool
    assert samples.x["input_ids"][:, 0].tolist() == list(range(12))
    assert samples.y.tolist() == [0, 1, 2] * 4


def test_a_pair_of_arrays_may_have_several_inputs() -> None:
    x = {"image": np.zeros((6, 1, 2, 2), np.uint8), "age": np.arange(6.0)}
    samples = read((x, np.arange(6) % 2))
    assert samples.x["age"].dtype == torch.float32
    pair = ((x["image"], x["age"]), np.arange(6) % 2)
    (images, ages), _ = read(pair).gather(torch.tensor([4, 1]))
    assert (images.shape, ages.tolist()) == ((2, 1, 2, 2), [4.0, 1.0])


def test_a_dict_with_one_input_is_a_single_tensor_and_a_picture_is_channels_first() -> None:
    class Pictures(Sentences):
        def __getitem__(self, index: int) -> dict[str, object]:
            return {"image": Image.new("RGB", (5, 4), (255, 51, 0)), "label": index % 2}

    x = read(Pictures()).x
    assert x.shape == (12, 3, 4, 5)
    assert x[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_bytes_stay_bytes_in_memory_until_a_batch_is_read() -> None:
    samples = read((np.full((4, 3, 8, 8), 51, np.uint8), np.arange(4) % 2))
    assert isinstance(samples.inputs, Held)
    assert samples.inputs.tree.dtype == torch.uint8
    for x in (samples.x, samples.gather(torch.tensor([2]))[0], next(samples.batches(2))[0]):
        assert x.dtype == torch.float32
        assert x.unique().tolist() == pytest.approx([0.2])
    same = read((np.full((4, 3, 8, 8), 51 / 255, np.float32), np.arange(4) % 2))
    assert samples.sha256 == same.sha256


def test_reading_by_picks_gives_inputs_and_targets_in_their_order() -> None:
    samples = read(Sentences())
    picks = [Pick(torch.tensor([3, 1])), Pick(torch.tensor([0]))]
    batches = list(samples.read(picks))
    assert [x["input_ids"][:, 0].tolist() for x, _ in batches] == [[3, 1], [0]]
    assert [y.tolist() for _, y in batches] == [[0, 1], [0]]
    taken = samples.take(torch.tensor([5, 2]))
    assert (taken.x["input_ids"][:, 0].tolist(), taken.rows.tolist()) == ([5, 2], [5, 2])


def test_the_hash_depends_on_the_names_of_inputs() -> None:
    x, y = torch.arange(6.0).view(6, 1), torch.arange(6) % 2
    hashes = {Samples(tree, y).sha256 for tree in (x, {"a": x}, {"b": x}, (x,))}
    assert len(hashes) == 4


def test_a_sample_of_another_structure_is_refused_by_its_index() -> None:
    error = refusal(Sentences(longer=7))
    assert "sample 7 has shape input_ids (6,) int64, mask (6,) bool" in str(error)
    assert "input_ids (5,) int64, mask (5,) bool, as sample 0 has" in error.allowed


def test_nan_is_refused_with_the_name_of_the_input_and_the_sample() -> None:
    x = {"a": np.zeros((4, 2)), "b": np.array([0.0, 1.0, np.nan, 2.0])}
    error = refusal((x, np.arange(4) % 2))
    assert error.where == "the data: train: b"
    assert "first in sample 2" in str(error)


def test_inputs_of_differing_lengths_are_refused_by_name() -> None:
    x = {"a": np.zeros((4, 2)), "b": np.zeros((3, 2))}
    assert "3 inputs in b, but 4 labels" in str(refusal((x, np.arange(4) % 2)))


def test_parts_of_another_structure_are_refused(tmp_path: Path) -> None:
    from edgekd.data.load import load_data
    from edgekd.values.recipe import DataTable

    table = DataTable(source="given")
    object.__setattr__(table, "_parts", None)
    np.savez(tmp_path / "a.npz", x_train=np.zeros((9, 2)), y_train=np.arange(9) % 3,
             x_test=np.zeros((9, 2), int), y_test=np.arange(9) % 3)  # fmt: skip
    with pytest.raises(InputError, match=r"samples of shape \(2,\) int64"):
        load_data(DataTable(source="a.npz"), tmp_path)


class TwoInputs(nn.Module):
    """Reads a tree, gives a dict."""

    def forward(self, x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        total = x["input_ids"].float().sum(1, keepdim=True)
        return {"logits": torch.cat([-total, total], 1), "argmax": x["input_ids"][:, 0]}


def test_predict_reads_a_tree_in_batches_and_returns_a_tree() -> None:
    samples = read(Sentences())
    for inputs in (samples, samples.x):
        outputs = predict(TwoInputs(), inputs, batch=5)
        assert outputs["logits"].shape == (12, 2)
        assert outputs["argmax"].tolist() == list(range(12))
    labels = Samples(samples.x, torch.ones(12, dtype=torch.int64))
    assert evaluate(TwoInputs(), labels, batch=5) == pytest.approx(11 / 12)
