"""Correlation congruence against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.correlation import Correlation


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
