"""Reverse KL against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.losses.reverse_kl import ReverseKL

LABELS = torch.tensor([0])
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])


def test_the_value_is_the_hand_computed_one_with_t_squared():
    # T = 2: p_t = softmax(1, 0) = (0.7310586, 0.2689414), p_s = (0.5, 0.5).
    expected = 4 * (0.5 * math.log(0.5 / 0.7310586) + 0.5 * math.log(0.5 / 0.2689414))
    assert ReverseKL(temperature=2.0)(STUDENT, TEACHER, LABELS).item() == pytest.approx(expected)


def test_it_is_kl_with_the_sides_exchanged():
    from edgekd.losses.kl import KL

    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    expected = KL(temperature=3.0)(teacher, student, LABELS)
    assert torch.allclose(ReverseKL(temperature=3.0)(student, teacher, LABELS), expected)


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 4, 1])
    loss = ReverseKL(temperature=2.0)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))


@pytest.mark.parametrize("count", [1, 4])
def test_equal_logits_give_zero_and_a_finite_gradient(count):
    student = torch.randn(count, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = ReverseKL(temperature=2.0)(
        student, student.detach().clone(), torch.zeros(count, dtype=torch.int64)
    )
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        ReverseKL(temperature=temperature)
