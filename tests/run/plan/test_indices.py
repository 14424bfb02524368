"""Ids beyond a network's table are refused by the plan, with the sample's number."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edgekd
from edgekd.data.tasks.own import own
from edgekd.errors import InputError

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


@pytest.mark.parametrize(
    ("name", "value", "span"), [("train", 99, "ids 15 to 99"), ("test", -1, "ids -1 to 18")]
)
def test_an_id_that_the_table_lacks_is_refused_with_its_sample(name, value, span):
    parts = {"train": part(300), "validation": part(20), "test": part(300)}
    parts[name][0]["ids"][285 if name == "train" else 152, 1] = value
    with pytest.raises(InputError) as caught:
        planned(Words(), **parts)
    number = 285 if name == "train" else 152
    assert f"the network fails on sample {number}, with {span}" in str(caught.value)
    assert f"data 'given': {name}" in str(caught.value)
    assert "the vocabulary" in caught.value.hint


def test_the_number_is_that_of_the_source_for_samples_that_are_held_back_too():
    for number in (3, 7, 36, 59):
        x, y = part(60)
        x["ids"][number, 0] = VOCABULARY
        with pytest.raises(InputError, match=f"'given': train: .* fails on sample {number}, with"):
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
