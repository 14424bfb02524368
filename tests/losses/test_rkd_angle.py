"""Relational distillation by angles against numbers computed by hand."""

import pytest
import torch

from edgekd.losses.rkd_angle import RKDAngle


def test_the_value_is_the_hand_computed_one():
    # A right-angled triangle has cosines 0, 0.7071, 0.7071; an equilateral one 0.5 three times.
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    expected = (0.5**2 / 2 + 2 * (0.5**0.5 - 0.5) ** 2 / 2) / 3
    assert RKDAngle()(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_scale_and_size_do_not_matter():
    features = torch.randn(5, 3)
    wide = torch.cat([7 * features, torch.zeros(5, 4)], dim=1)
    assert RKDAngle()(features, wide).item() == pytest.approx(0, abs=1e-6)
