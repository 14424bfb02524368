"""What does not fit between samples and a network is said at its first call, by name."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edgekd
from edgekd.errors import InputError


class Words(nn.Module):
    """Like a network of transformers: keyword arguments, and more of them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4)
        self.head = nn.Linear(4, 2)

    def forward(
        self, input_ids: Tensor | None = None, mask: Tensor | None = None, **more: Any
    ) -> Tensor:
        if input_ids is None:
            raise ValueError("specify input_ids")
        words = self.table(input_ids) * more.get("scale", torch.ones(1, 1)).unsqueeze(2)
        return self.head(words.mean(1))


def refusal(model: nn.Module, x: Any) -> InputError:
    y = torch.arange(40) % 2
    with pytest.raises(InputError) as caught:
        plan(model, x, y)
    return caught.value


def plan(model: nn.Module, x: Any, y: Tensor) -> Any:
    return edgekd.plan(
        model, data={"train": (x, y), "test": (x, y)}, target="x86", backends=("onnx",),
        stages=[{"kind": "distill", "epochs": 1, "batch_size": 8}],
    )  # fmt: skip


IDS = torch.arange(120).view(40, 3) % 20


def test_an_input_that_keyword_arguments_swallow_is_refused_with_the_nearest_name():
    error = refusal(Words(), {"input_ids": IDS, "maks": torch.ones(40, 3)})
    assert error.message == "the samples have an input 'maks', which forward() does not take"
    assert error.allowed == "input_ids, mask"
    assert "'mask'" in error.hint


def test_a_misspelt_input_without_which_the_network_fails_is_named_once():
    error = refusal(Words(), {"input_id": IDS})
    assert error.message == "the samples have an input 'input_id', which forward() does not take"
    assert "'input_ids'" in error.hint
    assert len(error.faults) <= 1


def test_an_input_that_keyword_arguments_use_is_taken():
    x = {"input_ids": IDS, "scale": torch.rand(40, 1)}
    assert plan(Words(), x, torch.arange(40) % 2).data.name == "given"


def test_a_student_may_ignore_an_input_of_its_teacher():
    class Student(Words):
        def forward(self, input_ids: Tensor, **more: Any) -> Tensor:
            return self.head(self.table(input_ids).mean(1))

    x = {"input_ids": IDS, "mask": torch.ones(40, 3)}
    y = torch.arange(40) % 2
    made = edgekd.plan(
        Words(), student=Student(), data={"train": (x, y), "test": (x, y)}, target="x86",
        backends=("onnx",), stages=[{"kind": "distill", "epochs": 1, "batch_size": 8}],
    )  # fmt: skip
    assert made.data.name == "given"


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


def test_a_dict_for_a_network_of_one_input_is_explained():
    error = refusal(Picture(), {"image": torch.randn(40, 3, 8, 8)})
    assert error.message.startswith("'Picture' fails on samples of shape image (3, 8, 8) float32")
    assert error.hint == (
        "forward() takes one input: name it 'x', or give each sample as (input, label)"
    )


def test_an_input_by_the_name_of_the_only_parameter_is_taken():
    x = {"x": torch.randn(40, 3, 8, 8)}
    assert plan(Picture(), x, torch.arange(40) % 2).data.name == "given"
