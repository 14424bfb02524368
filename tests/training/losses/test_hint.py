"""FitNets' hint against numbers computed by hand."""

import pytest
import torch
from torch import nn

from edgekd.training.losses.hint import Hint


def prepared(student: tuple, teacher: tuple, **keys) -> Hint:
    hint = Hint(**keys)
    hint.prepare(student, teacher)
    return hint


def test_equal_shapes_are_compared_without_a_regressor():
    hint = prepared((2, 1, 2), (2, 1, 2))
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]], requires_grad=True)
    teacher = torch.tensor([[[[0.0, 2.0]], [[5.0, 4.0]]]])
    loss = hint(student, teacher)  # (1 + 0 + 4 + 0) / 4
    loss.backward()
    assert loss.item() == 1.25
    assert student.grad.flatten().tolist() == [0.5, 0.0, -1.0, 0.0]
    assert list(hint.parameters()) == []


def test_the_regressor_is_a_one_by_one_convolution():
    hint = prepared((2, 1, 1), (1, 1, 1))
    hint.regressor.weight.data = torch.tensor([[2.0, -1.0]])
    hint.regressor.bias.data = torch.tensor([0.5])
    student = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)
    loss = hint(student, torch.tensor([2.5]).view(1, 1, 1, 1))  # r = 6 - 1 + 0.5; (5.5 - 2.5)^2
    loss.backward()
    assert loss.item() == pytest.approx(9.0)
    assert hint.regressor.weight.grad.tolist() == [[18.0, 6.0]]  # 2 * 3 * (3, 1)
    features = torch.randn(2, 4, 3, 3)
    wide = prepared((4, 3, 3), (6, 3, 3))
    weight, bias = wide.regressor.weight[:, :, None, None], wide.regressor.bias
    target = nn.functional.conv2d(features, weight, bias)
    assert float(wide(features, target.detach())) == pytest.approx(0.0, abs=1e-10)


def test_a_larger_map_is_pooled_to_the_smaller():
    hint = prepared((1, 2, 2), (1, 1, 1))
    student = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])  # mean 3
    assert float(hint(student, torch.tensor([[[[1.0]]]]))) == 4.0
    assert float(hint(torch.tensor([[[[1.0]]]]), student)) == 4.0


def test_sequences_have_channels_last_unless_told_otherwise():
    assert prepared((5, 8), (5, 12)).regressor.weight.shape == (12, 8)
    assert float(prepared((5, 8), (5, 8))(torch.ones(2, 5, 8), torch.zeros(2, 5, 8))) == 1.0
    first = prepared((8, 5), (12, 5), layout="channels-first")
    assert first.regressor.weight.shape == (12, 8)
    assert first(torch.ones(2, 8, 5), torch.zeros(2, 12, 5)).ndim == 0
    assert prepared((5, 8), (3, 8))(torch.ones(1, 5, 8), torch.ones(1, 3, 8)) == 0


def test_vectors_are_bridged_by_a_linear_layer():
    hint = prepared((4,), (6,))
    assert hint(torch.randn(3, 4), torch.randn(3, 6)).ndim == 0
    assert hint.regressor.weight.shape == (6, 4)


def test_a_regressor_can_be_asked_for_where_channels_agree():
    assert isinstance(prepared((4,), (4,), regressor="always").regressor, nn.Linear)


def test_maps_and_vectors_can_not_be_bridged():
    with pytest.raises(
        ValueError, match=r"\(4, 2, 2\) and teacher features \(4,\) can't be matched"
    ):
        prepared((4, 2, 2), (4,))
