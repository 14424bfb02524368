"""Weighted transformed teacher matching against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.wttm import WTTM

LABELS = torch.tensor([0])
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])


def test_the_value_is_the_hand_computed_one():
    # T = 2: U = sqrt(0.8807971) + sqrt(0.1192029), p_t = (0.7310586, 0.2689414).
    divergence = 0.7310586 * math.log(1.4621172) + 0.2689414 * math.log(0.5378828)
    weight = math.sqrt(0.8807971) + math.sqrt(0.1192029)
    found = WTTM(temperature=2.0)(STUDENT, TEACHER, LABELS).item()
    assert found == pytest.approx(weight * divergence, abs=1e-6)


def test_each_sample_has_its_own_weight():
    students, teachers = torch.zeros(2, 2), torch.tensor([[2.0, 0.0], [9.0, 0.0]])
    loss = WTTM(temperature=2.0)
    alone = [loss(students[i : i + 1], teachers[i : i + 1], LABELS) for i in (0, 1)]
    assert torch.allclose(loss(students, teachers, LABELS), (alone[0] + alone[1]) / 2)


def test_it_is_zero_where_the_student_is_the_teacher_over_t():
    assert WTTM(temperature=2.0)(TEACHER / 2, TEACHER, LABELS).item() == pytest.approx(0, abs=1e-7)
