"""Ids beyond a network's table are refused by the plan, with the sample's number."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import edgekd
from edgekd.data.tasks.own import own
from edgekd.errors import InputError
from edgekd.run.compress import run_plan

VOCABULARY = 20


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head((self.table(ids) * mask.unsqueeze(2)).mean(1))


def part(count: int) -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.arange(count * 3).view(count, 3) % VOCABULARY
    return {"ids": ids, "mask": torch.ones(count, 3)}, torch.arange(count) % 2


def planned(model: nn.Module, **data: Any) -> Any:
    stages = [{"kind": "distill", "epochs": 1, "batch_size": 8}]
    return edgekd.plan(model, data=data, target="x86", backends=("onnx",), stages=stages)


@pytest.mark.parametrize(("name", "value"), [("train", 99), ("test", -1)])
def test_an_id_that_the_table_lacks_is_refused_with_its_sample(name, value):
    parts = {"train": part(300), "validation": part(20), "test": part(300)}
    number = 285 if name == "train" else 152
    parts[name][0]["ids"][number, 1] = value
    with pytest.raises(InputError) as caught:
        planned(Words(), **parts)
    assert caught.value.where == f"data 'given': {name}"
    assert caught.value.message == (
        f"sample {number} has {value} at position 1 of 'ids': the network looks it up in a table"
    )
    assert caught.value.allowed == "0 to 19"
    assert "vocabulary" in caught.value.hint


class Halved(Words):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return super().forward(ids // 2, mask)


def test_where_the_limits_are_unknown_the_network_itself_says_so():
    train = part(300)
    train[0]["ids"][285, 1] = 99
    with pytest.raises(InputError) as caught:
        planned(Halved(), train=train, test=part(60))
    assert "the network fails on sample 285, with ids 15 to 99" in str(caught.value)
    assert "vocabulary" in caught.value.hint


class Sentences(Dataset):
    """Samples that are made when they are read."""

    def __init__(self, count: int, wrong: int = -1) -> None:
        self.samples, self.wrong = part(count), wrong

    def __len__(self) -> int:
        return len(self.samples[1])

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        x = {name: leaf[number].clone() for name, leaf in self.samples[0].items()}
        if number == self.wrong:
            x["ids"][2] = VOCABULARY
        return x, self.samples[1][number]


def streamed(train: Any, test: Any, model: nn.Module, **more: Any) -> Any:
    stages = [{"kind": "distill", "epochs": 1, "batch_size": 8}]
    data = {"source": {"train": train, "test": test}, "stream": True, "workers": 0}
    return edgekd.plan(model, data=data, target="x86", backends=("onnx",), stages=stages, **more)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_streamed_sample_is_refused_by_the_plan_where_it_is_read_there(name):
    sets = {"train": Sentences(60), "test": Sentences(60)} | {name: Sentences(200, wrong=170)}
    with pytest.raises(InputError) as caught:
        streamed(sets["train"], sets["test"], Words())
    assert caught.value.where == f"the data: {name}"
    assert caught.value.message.startswith("sample 170 has 20 at position 2 of 'ids'")
    assert caught.value.allowed == "0 to 19"


def test_a_streamed_sample_that_the_plan_does_not_reach_is_refused_when_it_is_read(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("edgekd.run.plan.indices.SEARCHED_S", 1e-9)
    plan = streamed(Sentences(200, wrong=170), Sentences(60), Words(), out=tmp_path)
    with pytest.raises(InputError, match="sample 170 has 20 at position 2 of 'ids'") as caught:
        run_plan(plan, lambda *_: None)
    assert caught.value.allowed == "0 to 19"


class Few(Words):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 4)


def test_the_smallest_table_of_all_networks_counts():
    with pytest.raises(InputError, match="sample 4 has 12 at position 0 of 'ids'") as caught:
        streamed(Sentences(60), Sentences(60), Words(), student=Few())
    assert caught.value.allowed == "0 to 11"


def test_the_number_is_that_of_the_source_for_samples_that_are_held_back_too():
    for number in (3, 7, 36, 59):
        x, y = part(60)
        x["ids"][number, 0] = VOCABULARY
        with pytest.raises(InputError, match=f"'given': train: sample {number} has 20 at"):
            planned(Words(), train=(x, y), test=part(60))


def test_ids_of_the_whole_table_are_accepted():
    assert planned(Words(), train=part(60), test=part(60)).data.name == "given"


def test_a_loss_between_classes_is_refused_for_one_number():
    """Of one class the probability is always 1, so that `kl` would be 0 in every step."""
    x = torch.randn(40, 4)
    task = own(metric=lambda outputs, y: ((outputs > 0).long() == y).double().mean(1))
    y = torch.arange(40)[:, None] % 2
    with pytest.raises(
        InputError, match="'kl' compares classes, but the output is one number"
    ) as e:
        planned(nn.Linear(4, 1), train=(x, y), test=(x, y), task=task)
    assert "'regression'" in e.value.hint


class Three(Words):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)


def test_more_classes_than_the_labels_show_are_explained():
    with pytest.raises(InputError, match=r"outputs of shape \(\d+, 3\)") as caught:
        planned(Three(), train=part(40), test=part(40))
    hint = "the labels show 2 classes; if there are more, return 'classes': 3 too"
    assert hint in {fault.hint for fault in caught.value.faults or [caught.value]}
