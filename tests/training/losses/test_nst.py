"""Neuron selectivity transfer against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.nst import NST

# Two channels of one sample each: (1, 0) and, once normalized, (0.6, 0.8).
STUDENT, TEACHER = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[3.0, 4.0]]]])


def test_the_value_is_the_hand_computed_one():
    assert NST()(STUDENT, TEACHER).item() == pytest.approx(1 + 1 - 2 * 0.36)


def test_channel_counts_and_sizes_may_differ():
    features = torch.rand(2, 3, 4, 4)
    assert NST()(features.repeat(1, 2, 1, 1), features).item() == pytest.approx(0, abs=1e-5)
    assert NST()(features, torch.rand(2, 5, 2, 2)).ndim == 0
