"""Relational distillation by angles against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.rkd_angle import RKDAngle


def test_the_value_is_the_hand_computed_one():
    # A right-angled triangle has cosines 0, 0.7071, 0.7071; an equilateral one 0.5 three times.
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    expected = (0.5**2 / 2 + 2 * (0.5**0.5 - 0.5) ** 2 / 2) / 3
    assert RKDAngle()(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_scale_and_size_do_not_matter():
    features = torch.randn(5, 3)
    wide = torch.cat([7 * features, torch.zeros(5, 4)], dim=1)
    assert RKDAngle()(features, wide).item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shape = (4, *(3,))
    student = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64, generator=generator)
    loss = RKDAngle()
    loss.double()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_features_give_zero_and_a_finite_gradient(count):
    shape = (count, *(3,))
    student = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = RKDAngle()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_features_of_nothing_but_zeros_give_finite_numbers():
    student = torch.zeros(3, *(3,), requires_grad=True)
    loss = RKDAngle()(student, torch.zeros(3, *(3,)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
