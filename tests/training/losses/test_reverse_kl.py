"""Reverse KL against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.reverse_kl import ReverseKL

LABELS = torch.tensor([0])
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])


def test_the_value_is_the_hand_computed_one_with_t_squared():
    # T = 2: p_t = softmax(1, 0) = (0.7310586, 0.2689414), p_s = (0.5, 0.5).
    expected = 4 * (0.5 * math.log(0.5 / 0.7310586) + 0.5 * math.log(0.5 / 0.2689414))
    assert ReverseKL(temperature=2.0)(STUDENT, TEACHER, LABELS).item() == pytest.approx(expected)


def test_it_is_kl_with_the_sides_exchanged():
    from edgekd.training.losses.kl import KL

    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    expected = KL(temperature=3.0)(teacher, student, LABELS)
    assert torch.allclose(ReverseKL(temperature=3.0)(student, teacher, LABELS), expected)
