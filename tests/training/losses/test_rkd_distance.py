"""Relational distillation by distances against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.rkd_distance import RKDDistance


def test_the_value_is_the_hand_computed_one():
    # Distances 1, 3, 2 over their mean 2; 2, 4, 2 over 8/3: differences -1/4, 0, 1/4.
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [2.0], [4.0]])
    assert RKDDistance()(student, teacher).item() == pytest.approx(2 * 0.25**2 / 2 / 3)


def test_a_large_difference_counts_linearly():
    # Four points: one pair takes all of the distance's mean on the student's side.
    student = torch.tensor([[0.0], [0.0], [0.0], [6.0]])  # 0, 0, 6, 0, 6, 6 over 3
    teacher = torch.tensor([[0.0], [0.0], [6.0], [0.0]])  # 0, 6, 0, 6, 0, 6 over 3
    assert RKDDistance()(student, teacher).item() == pytest.approx(4 * 1.5 / 6)


def test_scale_and_size_do_not_matter():
    features = torch.randn(5, 3)
    wide = torch.cat([7 * features, torch.zeros(5, 4)], dim=1)
    assert RKDDistance()(features, wide).item() == pytest.approx(0, abs=1e-6)
