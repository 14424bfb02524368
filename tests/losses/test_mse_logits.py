"""Regression on logits against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.mse_logits import MSELogits


def test_the_value_and_the_gradient_are_the_hand_computed_ones():
    student = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True)
    loss = MSELogits()(student, torch.tensor([[0.0, 4.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 3.5  # (1 + 4 + 0 + 9) / 4
    assert student.grad.tolist() == [[0.5, -1.0], [0.0, 1.5]]


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 4, 1])
    loss = MSELogits()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))


@pytest.mark.parametrize("count", [1, 4])
def test_equal_logits_give_zero_and_a_finite_gradient(count):
    student = torch.randn(count, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.zeros(count, dtype=torch.int64)
    loss = MSELogits()(student, student.detach().clone(), labels)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max() < 1e-5
