"""Similarity-preserving distillation against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.similarity import Similarity


def test_the_value_is_the_hand_computed_one():
    # Rows (1, 0), (0, 1) against (1, 1) / sqrt 2 twice.
    student, teacher = torch.eye(2), torch.ones(2, 1)
    expected = 2 * ((1 - 0.5**0.5) ** 2 + 0.5) / 4
    assert Similarity()(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_scale_and_size_do_not_matter():
    features = torch.randn(4, 3, 2, 2)
    assert Similarity()(3 * features, features.repeat(1, 2, 1, 1)).item() < 1e-10


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shape = (4, *(3, 2, 2))
    student = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64, generator=generator)
    loss = Similarity()
    loss.double()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_features_give_zero_and_a_finite_gradient(count):
    shape = (count, *(3, 2, 2))
    student = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = Similarity()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_features_of_nothing_but_zeros_give_finite_numbers():
    student = torch.zeros(3, *(3, 2, 2), requires_grad=True)
    loss = Similarity()(student, torch.zeros(3, *(3, 2, 2)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
