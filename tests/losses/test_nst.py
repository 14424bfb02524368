"""Neuron selectivity transfer against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.nst import NST

# Two channels of one sample each: (1, 0) and, once normalized, (0.6, 0.8).
STUDENT, TEACHER = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[3.0, 4.0]]]])


def test_the_value_is_the_hand_computed_one():
    assert NST()(STUDENT, TEACHER).item() == pytest.approx(1 + 1 - 2 * 0.36)


def test_channel_counts_and_sizes_may_differ():
    features = torch.rand(2, 3, 4, 4)
    assert NST()(features.repeat(1, 2, 1, 1), features).item() == pytest.approx(0, abs=1e-5)
    assert NST()(features, torch.rand(2, 5, 2, 2)).ndim == 0


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shape = (4, *(3, 2, 2))
    student = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64, generator=generator)
    loss = NST()
    loss.double()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_features_give_zero_and_a_finite_gradient(count):
    shape = (count, *(3, 2, 2))
    student = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = NST()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_features_of_nothing_but_zeros_give_finite_numbers():
    student = torch.zeros(3, *(3, 2, 2), requires_grad=True)
    loss = NST()(student, torch.zeros(3, *(3, 2, 2)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_shapes_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="can't be bridged"):
        NST().prepare((4, 2, 2), (4,))
