"""Transformed teacher matching against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.ttm import TTM

LABELS = torch.tensor([0])
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])


def test_the_value_is_the_hand_computed_one_without_t_squared():
    # T = 2: p_t = (0.7310586, 0.2689414) against (0.5, 0.5).
    expected = 0.7310586 * math.log(1.4621172) + 0.2689414 * math.log(0.5378828)
    found = TTM(temperature=2.0)(STUDENT, TEACHER, LABELS).item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_it_is_zero_where_the_student_is_the_teacher_over_t():
    student = (TEACHER / 2).requires_grad_()
    loss = TTM(temperature=2.0)(student, TEACHER, LABELS)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.abs().max() < 1e-6
