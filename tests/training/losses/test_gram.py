"""Gram matrices against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.gram import Gram


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
