"""Cosine distance of hidden states against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.cosine import Cosine


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
