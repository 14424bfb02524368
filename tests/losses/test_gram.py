"""Gram matrices against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.gram import Gram


def test_the_value_is_the_hand_computed_one():
    # F F^T / 2 = ((2.5, 5.5), (5.5, 12.5)); against zeros the mean of its squares.
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)
    assert Gram()(features, torch.zeros(1, 2, 1, 2)).item() == pytest.approx(55.75)


def test_sizes_may_differ():
    features = torch.randn(2, 3, 2, 2)
    larger = features.repeat(1, 1, 2, 2)
    assert Gram()(features, larger).item() == pytest.approx(0, abs=1e-9)


def test_channel_counts_may_not_differ():
    with pytest.raises(ValueError, match="as many channels on both sides, found 4 and 8"):
        Gram().prepare((4, 2, 2), (8, 2, 2))


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shape = (4, *(3, 2, 2))
    student = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64, generator=generator)
    loss = Gram()
    loss.double()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_features_give_zero_and_a_finite_gradient(count):
    shape = (count, *(3, 2, 2))
    student = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = Gram()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_features_of_nothing_but_zeros_give_finite_numbers():
    student = torch.zeros(3, *(3, 2, 2), requires_grad=True)
    loss = Gram()(student, torch.zeros(3, *(3, 2, 2)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_shapes_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="can't be bridged"):
        Gram().prepare((4, 2, 2), (4,))
