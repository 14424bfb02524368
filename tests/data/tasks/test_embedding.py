"""Embeddings: judged by the order of the cosines of pairs."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from edgekd.data.load import load_data
from edgekd.data.tasks.embedding import Embedding, pairs_of
from edgekd.errors import InputError
from edgekd.values.recipe import DataTable

OUTPUTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
Y = torch.tensor([[7, 0.0], [7, 0.0], [3, 1.0], [-1, -1], [3, 1.0], [-1, -1]])
"""Pair 7 are the samples 0 and 1, cosine 0; pair 3 are 2 and 4, cosine 0.707."""


def test_pairs_are_found_by_their_number():
    first, second = pairs_of(Y)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (2, 4)]


def test_spearman_compares_the_order_of_cosines_with_that_of_likeness():
    task = Embedding()
    assert float(task.judged(OUTPUTS, Y)) == pytest.approx(1.0)
    turned = Y.clone()
    turned[:, 1] = 1 - Y[:, 1]
    assert float(task.judged(OUTPUTS, turned)) == pytest.approx(-1.0)
    # cosines 0, 0.707, 1 in the order of 1, 3, 2: 1 - 6 * (0 + 1 + 1) / (3 * 8)
    outputs = torch.cat([OUTPUTS, OUTPUTS[:1], OUTPUTS[:1]])
    y = torch.cat([Y, torch.tensor([[4, 0.5], [4, 0.5]])])
    assert float(task.judged(outputs, y)) == pytest.approx(0.5)


def test_draws_take_whole_pairs():
    drawn = Embedding().redrawn(OUTPUTS, Y, [torch.tensor([0, 2, 2, 3]), torch.tensor([0, 0, 5])])
    assert drawn[0] == pytest.approx(1.0)
    assert drawn[1] == 0.0  # one pair, twice: no order


def test_the_loss_pulls_a_pairs_cosine_to_its_likeness():
    expected = ((0 - 0) ** 2 + (0.5**0.5 - 0.5) ** 2) / 2
    scaled = Embedding(most=2.0)
    assert float(scaled.label_loss(OUTPUTS, Y)) == pytest.approx(expected, rel=1e-5)
    alone = Y.where(torch.arange(6)[:, None] == 0, torch.tensor(-1.0))
    assert float(scaled.label_loss(OUTPUTS, alone)) == 0.0


def test_networks_agree_by_cosines_whatever_their_widths():
    task = Embedding()
    assert task.agreement(OUTPUTS, -OUTPUTS).tolist() == [0.0] * 6
    wider = torch.cat([OUTPUTS, torch.zeros(6, 3)], 1)
    assert task.agreement(OUTPUTS, wider).tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize(
    ("y", "fault"),
    [
        (torch.zeros(4), "targets of shape (4,)"),
        (torch.tensor([[1, 0.5], [1, 0.5], [1, 0.5]]), "pair 1 has 3 samples"),
        (torch.tensor([[1, 4.0], [1, 4.0]]), "pair 1 is alike by 4"),
        (torch.tensor([[1, 1.0], [1, 0.0]]), "pair 1 is alike by 1 and by 0"),
    ],
)
def test_pairs_that_are_none_are_faults(y, fault):
    found = Embedding().target_faults(y, 0, "data")
    assert any(fault in str(each) for each in found), [str(each) for each in found]


def samples(pairs: int, alone: int) -> tuple[Tensor, Tensor]:
    number = torch.arange(pairs).repeat_interleave(2).float()
    y = torch.cat([torch.stack([number, number / pairs], 1), torch.full((alone, 2), -1.0)])
    return torch.randn(len(y), 4), y


def loaded(monkeypatch: pytest.MonkeyPatch, **parts: tuple[Tensor, Tensor]):
    module = ModuleType("pairs_of_test")
    module.parts = lambda: parts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pairs_of_test", module)
    source = DataTable(source="pairs_of_test:parts", task="embedding", validation=0.25)
    return load_data(source, Path())


def test_what_is_held_back_are_whole_pairs(monkeypatch):
    data = loaded(monkeypatch, train=samples(8, 5), test=samples(3, 0))
    assert len(data.validation) == 4
    assert len(pairs_of(data.validation.y)[0]) == 2
    assert len(data.train) == 17


def test_parts_that_judge_need_pairs(monkeypatch):
    with pytest.raises(InputError, match="1 pairs among 4 samples") as caught:
        loaded(monkeypatch, train=samples(8, 0), test=samples(1, 2))
    assert "the same number" in caught.value.hint
    with pytest.raises(InputError, match="none can be held back for validation") as caught:
        loaded(monkeypatch, train=samples(0, 9), test=samples(3, 0))
    assert "a validation part that has labels" in caught.value.allowed
