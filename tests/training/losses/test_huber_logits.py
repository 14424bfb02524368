"""Huber on logits against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.huber_logits import HuberLogits


def test_the_value_and_the_gradient_are_the_hand_computed_ones_on_both_branches():
    student = torch.tensor([[0.5, -4.0]], requires_grad=True)
    loss = HuberLogits(delta=2.0)(student, torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx((0.125 + 2 * (4 - 1)) / 2)
    assert student.grad.tolist() == [[0.25, -1.0]]


def test_a_delta_that_is_not_above_zero_is_refused():
    with pytest.raises(ValueError, match="delta must be above 0, found 0"):
        HuberLogits(delta=0)
