"""Similarity-preserving distillation against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.similarity import Similarity


def test_the_value_is_the_hand_computed_one():
    # Rows (1, 0), (0, 1) against (1, 1) / sqrt 2 twice.
    student, teacher = torch.eye(2), torch.ones(2, 1)
    expected = 2 * ((1 - 0.5**0.5) ** 2 + 0.5) / 4
    assert Similarity()(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_scale_and_size_do_not_matter():
    features = torch.randn(4, 3, 2, 2)
    assert Similarity()(3 * features, features.repeat(1, 2, 1, 1)).item() < 1e-10
