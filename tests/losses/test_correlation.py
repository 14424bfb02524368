"""Correlation congruence against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.losses.correlation import Correlation


@pytest.mark.parametrize(("order", "terms"), [(1, 2 * 0.4), (2, 2 * 0.4 + (2 * 0.4) ** 2 / 2)])
def test_the_value_is_the_hand_computed_one(order, terms):
    # Orthogonal against equal vectors: the two off-diagonal entries differ by all powers above 0.
    student, teacher = 5 * torch.eye(2), torch.ones(2, 3)
    expected = 2 * (math.exp(-0.8) * terms) ** 2 / 4
    found = Correlation(gamma=0.4, order=order)(student, teacher).item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_many_orders_come_to_the_gaussian_kernel():
    features = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    exact = torch.exp(-0.4 * torch.cdist(features, features) ** 2)
    assert torch.allclose(Correlation(gamma=0.4, order=12)._kernel(features), exact, atol=1e-5)


def test_parameters_that_are_not_above_zero_are_refused():
    with pytest.raises(ValueError, match="gamma must be above 0"):
        Correlation(gamma=0)
    with pytest.raises(ValueError, match="order must be above 0"):
        Correlation(order=0)


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shape = (4, *(3, 2))
    student = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64, generator=generator)
    loss = Correlation()
    loss.double()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_features_give_zero_and_a_finite_gradient(count):
    shape = (count, *(3, 2))
    student = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = Correlation()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_features_of_nothing_but_zeros_give_finite_numbers():
    student = torch.zeros(3, *(3, 2), requires_grad=True)
    loss = Correlation()(student, torch.zeros(3, *(3, 2)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
