"""Samples without labels, DataLoaders, several inputs in an .npz, and the balanced sampler."""

from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import context
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from edgekd.data import Data, load_data
from edgekd.data.factory import read_parts
from edgekd.data.order import epoch_order
from edgekd.data.samples import Samples
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching
from edgekd.values.preprocess import Preprocess
from edgekd.values.recipe import DataTable

X = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 4


def load(folder: Path, y: object, **table: object) -> Data:
    np.savez(folder / "set.npz", x_train=X, y_train=y, x_test=X[:12], y_test=Y[:12])
    return load_data(DataTable(source="set.npz", **table), folder)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 4)


def test_minus_one_is_a_training_sample_without_a_label(tmp_path) -> None:
    data = load(tmp_path, torch.where(torch.arange(40) < 20, -1, Y))
    assert "20 of 36 training samples have no label" in data.notes
    assert int((data.validation.y == -1).sum()) == 0
    assert (data.unlabelled, data.classes) == (20, 4)


def test_labels_are_needed_to_hold_back_and_to_test(tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, torch.full((40,), -1))
    assert caught.value.message.startswith("no training sample has a label")
    assert "or a validation part that has labels" in caught.value.allowed
    parts = {"train": (X, Y), "test": (X, torch.full((40,), -1)), "classes": 4}
    with pytest.raises(InputError, match="label -1 of sample 0 is out of range"):
        load_data(data_of(parts), tmp_path)


def data_of(parts: object, **table: object) -> DataTable:
    made = DataTable(source="given", **table)
    made._parts = parts
    return made


def test_the_label_loss_is_that_of_the_labelled_samples_alone() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = CLASSIFICATION.label_loss(logits, torch.tensor([0, -1]))
    assert float(loss.detach()) == pytest.approx(np.log(1 + np.exp(-2)))
    none = CLASSIFICATION.label_loss(logits, torch.tensor([-1, -1]))
    none.backward()
    assert float(none.detach()) == 0
    assert logits.grad.abs().sum() == 0


def test_a_student_learns_from_the_teacher_without_any_label(tmp_path) -> None:
    teacher = ModuleTeacher("big", "key", 1.0, network(1).eval(), Outputs())
    nameless = Samples(X, torch.full((40,), -1))
    data = Data("x", nameless, Samples(X, teacher.logits(X).argmax(1)), Samples(X, Y), 4)
    losses = [{"name": "kl", "weight": 1.0}]
    teaching = Teaching(epochs=60, batch_size=8, learning_rate=0.05, losses=losses)
    student = teach(network(2), context(teaching, data=data, teachers=[teacher], work=tmp_path))
    with torch.no_grad():
        agreement = (student(X).argmax(1) == teacher.logits(X).argmax(1)).double().mean()
    assert float(agreement) > 0.9
    alone = check_teaching(network(2), context(Teaching(losses=[]), data=data, work=tmp_path))
    assert "no training sample has a label, and there is no teacher" in str(alone[0])
    dkd = Teaching(losses=[{"name": "dkd", "weight": 1.0}])
    (fault,) = check_teaching(
        network(2), context(dkd, data=data, teachers=[teacher], work=tmp_path)
    )
    assert "'dkd' reads labels, but 40 of 40 training samples have none" in str(fault)


def test_the_balanced_sampler_draws_every_class_equally_often(tmp_path) -> None:
    y = torch.tensor([0] * 34 + [1, 1, 2, 2, 3, 3])
    data = load(tmp_path, y, sampler="balanced")
    drawn = torch.cat([data.train.y[epoch_order(data, 7, epoch)] for epoch in range(200)])
    shares = torch.bincount(drawn).double() / len(drawn)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.02)
    assert torch.equal(epoch_order(data, 7, 1), epoch_order(data, 7, 1))
    assert data.sha256 != load(tmp_path, y).sha256


def test_a_sampler_needs_classes(tmp_path) -> None:
    x, y = torch.rand(20, 3), torch.rand(20, 1)
    parts = {"train": (x, y), "test": (x, y)}
    with pytest.raises(InputError, match="samples of regression have no class to balance by"):
        load_data(data_of(parts, task="regression", sampler="balanced"), tmp_path)


def test_an_npz_may_have_several_inputs(tmp_path) -> None:
    arrays = {"y_train": Y, "y_test": Y[:12]}
    for part, count in (("train", 40), ("test", 12)):
        arrays[f"x_{part}.ids"] = np.arange(count * 2).reshape(count, 2)
        arrays[f"x_{part}.dense"] = X[:count].numpy()
    np.savez(tmp_path / "set.npz", **arrays)
    data = load_data(DataTable(source="set.npz"), tmp_path)
    assert {name: leaf.dtype for name, leaf in data.example.items()} == {
        "ids": torch.int64, "dense": torch.float32,
    }  # fmt: skip
    np.savez(tmp_path / "set.npz", **{**arrays, "x_tset.ids": X})
    with pytest.raises(InputError, match="unknown array 'x_tset'"):
        load_data(DataTable(source="set.npz"), tmp_path)


def test_a_data_loader_gives_its_data_set() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
    source = read_parts({"train": loader, "test": loader}, "the data", "data")
    assert torch.equal(source.train.x, X)
    assert torch.equal(source.train.y, Y)


def test_a_collate_function_makes_each_sample() -> None:
    def collate(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        x, y = zip(*samples, strict=True)
        return {
            "a": 2 * torch.stack(x),
            "b": torch.ones(len(x), 1).long(),
            "labels": torch.stack(y),
        }

    loader = DataLoader(TensorDataset(X, Y), batch_size=8, collate_fn=collate)
    train = read_parts({"train": loader, "test": loader}, "the data", "data").train
    assert torch.equal(train.x["a"], 2 * X)
    assert train.x["b"].shape == (40, 1)
    assert torch.equal(train.y, Y)


def test_a_sampler_that_would_be_lost_is_refused() -> None:
    sampler = WeightedRandomSampler([1.0] * 40, 40)
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, sampler=sampler)
    with pytest.raises(InputError) as caught:
        read_parts({"train": loader, "test": loader}, "the data", "data")
    assert "the DataLoader's WeightedRandomSampler would not be used" in str(caught.value)
    assert "sampler = 'balanced'" in caught.value.hint


class Endless(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Counted(Endless):
    def __len__(self) -> int:
        return 40


def test_a_data_loader_over_an_iterable_gives_its_samples_or_asks_for_a_length() -> None:
    loader = DataLoader(Counted(), batch_size=8)
    train = read_parts({"train": loader, "test": loader}, "the data", "data").train
    assert torch.equal(train.y, Y)
    loader = DataLoader(Endless(), batch_size=8)
    with pytest.raises(InputError, match="the Dataset has no length") as caught:
        read_parts({"train": loader, "test": loader}, "the data", "data")
    assert "__len__" in caught.value.hint
    loader = DataLoader(Counted(), batch_size=8, collate_fn=lambda samples: samples)
    with pytest.raises(InputError, match="collate_fn of a DataLoader over an iterable"):
        read_parts({"train": loader, "test": loader}, "the data", "data")


def test_a_tokenizer_named_by_a_text_is_refused_with_the_table_to_write() -> None:
    with pytest.raises(ValueError, match=r"{ file = 'bert/tokenizer.json', length = 128 }"):
        Preprocess(tokenizer="bert")  # type: ignore[arg-type]
