"""Variational information distillation against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.vid import VID


def simple(variance: float) -> VID:
    """One channel whose mean network passes a positive number through."""
    loss = VID(variance=variance)
    loss.prepare((1,), (1,))
    for layer in list(loss.mean)[::2]:
        layer.weight.data.fill_(1.0)
        layer.bias.data.zero_()
    return loss


@pytest.mark.parametrize("variance", [0.5, 5.0, 800.0])
def test_the_value_is_the_hand_computed_one(variance):
    found = simple(variance)(torch.tensor([[2.0]]), torch.tensor([[5.0]])).item()
    assert found == pytest.approx((math.log(variance) + 9 / variance) / 2, rel=1e-4)


def test_the_variance_is_learned_towards_the_squared_error():
    for variance, sign in ((4.0, -1.0), (20.0, 1.0)):  # the squared error is 9
        loss = simple(variance)
        loss(torch.tensor([[2.0]]), torch.tensor([[5.0]])).backward()
        assert loss.spread.grad.sign().item() == sign


def test_maps_of_other_sizes_and_widths_are_bridged():
    loss = VID()
    loss.prepare((4, 6, 6), (8, 3, 3))
    loss(torch.randn(1, 4, 6, 6), torch.randn(1, 8, 3, 3)).backward()
    assert loss.spread.grad.shape == (8,)
    assert loss.mean[0].weight.grad.shape == (8, 4)


def test_a_variance_that_is_not_above_zero_is_refused():
    with pytest.raises(ValueError, match="variance must be above 0, found 0"):
        VID(variance=0)
