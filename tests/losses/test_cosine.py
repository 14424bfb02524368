"""Cosine distance of hidden states against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.cosine import Cosine


def test_the_value_is_the_hand_computed_one():
    assert Cosine()(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])).item() == pytest.approx(
        0.4
    )


def test_tokens_and_pixels_are_compared_one_by_one():
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    teacher = torch.tensor([[[2.0, 0.0], [0.0, 9.0]]])
    assert Cosine()(tokens, teacher).item() == pytest.approx(0.2)
    maps, targets = tokens.mT.unsqueeze(2), teacher.mT.unsqueeze(2)
    assert Cosine()(maps, targets).item() == pytest.approx(0.2)


def test_other_widths_are_bridged_by_a_learned_layer():
    loss = Cosine()
    loss.prepare((5, 8), (5, 12))
    loss(torch.randn(2, 5, 8), torch.randn(2, 5, 12)).backward()
    assert loss.regressor.weight.grad.shape == (12, 8)


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shape = (4, *(5, 4))
    student = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64, generator=generator)
    loss = Cosine()
    loss.double()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_features_give_zero_and_a_finite_gradient(count):
    shape = (count, *(5, 4))
    student = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = Cosine()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad.isfinite().all()


def test_features_of_nothing_but_zeros_give_finite_numbers():
    student = torch.zeros(3, *(5, 4), requires_grad=True)
    loss = Cosine()(student, torch.zeros(3, *(5, 4)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_shapes_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="can't be bridged"):
        Cosine().prepare((4, 2, 2), (4,))
