"""Transformed teacher matching against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.losses.ttm import TTM

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


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 4, 1])
    loss = TTM()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        TTM(temperature=temperature)
