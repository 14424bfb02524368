"""Attention transfer against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.attention import Attention


def test_the_value_is_the_hand_computed_one():
    # Q_s = (1^2 + 0, 0 + 1^2) / sqrt 2, Q_t = (3, 4) / 5 from squares of sqrt 3 and 2.
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([3**0.5, 2.0]).view(1, 1, 1, 2)
    expected = ((0.5**0.5 - 0.6) ** 2 + (0.5**0.5 - 0.8) ** 2) ** 0.5
    assert float(Attention()(student, teacher)) == pytest.approx(expected, abs=1e-6)


def test_p_is_the_power_of_the_sum():
    # p = 1: the two channels add up to Q_s = (2, 2) / sqrt 8, whatever their signs; Q_t = (1, 0).
    student = torch.tensor([[[[1.0, -2.0]], [[-1.0, 0.0]]]])
    teacher = torch.tensor([[[[5.0, 0.0]]]])
    expected = ((1 - 2**-0.5) ** 2 + 1 / 2) ** 0.5
    assert float(Attention(p=1.0)(student, teacher)) == pytest.approx(expected, abs=1e-6)


def test_scale_and_channel_count_do_not_matter():
    features = torch.rand(2, 3, 4, 4)
    assert float(Attention()(7 * features, features)) == pytest.approx(0, abs=1e-5)
    assert float(Attention()(features.repeat(1, 2, 1, 1), features)) == pytest.approx(0, abs=1e-5)


def test_a_larger_map_is_pooled_to_the_smaller():
    attention = Attention()
    attention.prepare((3, 4, 4), (5, 2, 2))
    assert attention(torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)).ndim == 0


def test_sequences_attend_over_their_positions():
    student, teacher = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    student[0, 0], teacher[0, 1] = 1.0, 1.0
    assert float(Attention()(student, teacher)) == pytest.approx(2**0.5)


def test_vectors_have_no_positions_and_a_power_must_be_above_zero():
    with pytest.raises(ValueError, match="can't be matched"):
        Attention().prepare((4,), (4,))
    with pytest.raises(ValueError, match="p must be above 0, found 0"):
        Attention(p=0)
