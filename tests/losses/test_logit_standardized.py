"""KL on standardized logits against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.losses.logit_standardized import LogitStandardized

LABELS = torch.tensor([0])


def test_the_value_is_the_hand_computed_one():
    # Standardized: (-1, 0, 1) and (1, 0, -1); at T = 1 KL = sum p_t (z_t - z_s) = 2 (p_1 - p_3).
    student, teacher = torch.tensor([[4.0, 5.0, 6.0]]), torch.tensor([[7.0, 2.0, -3.0]])
    expected = 2 * (math.e - 1 / math.e) / (math.e + 1 + 1 / math.e)
    found = LogitStandardized(temperature=1.0)(student, teacher, LABELS).item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_t_squared_is_there():
    student, teacher = torch.tensor([[4.0, 5.0, 6.0]]), torch.tensor([[7.0, 2.0, -3.0]])
    half = [math.exp(0.5), 1.0, math.exp(-0.5)]
    expected = 4 * (half[0] - half[2]) / sum(half)
    found = LogitStandardized(temperature=2.0)(student, teacher, LABELS).item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_shift_and_scale_do_not_matter():
    logits = torch.randn(3, 5)
    assert LogitStandardized()(7 * logits - 3, logits, LABELS).item() == pytest.approx(0, abs=1e-5)


def test_logits_that_are_all_equal_give_a_finite_gradient():
    student = torch.zeros(1, 3, requires_grad=True)
    LogitStandardized()(student, torch.tensor([[1.0, 2.0, 3.0]]), LABELS).backward()
    assert student.grad.isfinite().all()


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 4, 1])
    loss = LogitStandardized()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))


@pytest.mark.parametrize("count", [1, 4])
def test_equal_logits_give_zero_and_a_finite_gradient(count):
    student = torch.randn(count, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = LogitStandardized()(
        student, student.detach().clone(), torch.zeros(count, dtype=torch.int64)
    )
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        LogitStandardized(temperature=temperature)
