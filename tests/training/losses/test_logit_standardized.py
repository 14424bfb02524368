"""KL on standardized logits against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.logit_standardized import LogitStandardized

LABELS = torch.tensor([0])


def test_the_value_is_the_hand_computed_one():
    # Standardized: (-1, 0, 1) and (1, 0, -1); at T = 1 KL = sum p_t (z_t - z_s) = 2 (p_1 - p_3).
    student, teacher = torch.tensor([[4.0, 5.0, 6.0]]), torch.tensor([[7.0, 2.0, -3.0]])
    expected = 2 * (math.e - 1 / math.e) / (math.e + 1 + 1 / math.e)
    found = LogitStandardized(temperature=1.0)(student, teacher, LABELS).item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_t_squared_is_there():
    student, teacher = torch.tensor([[4.0, 5.0, 6.0]]), torch.tensor([[7.0, 2.0, -3.0]])
    half = [math.exp(0.5), 1.0, math.exp(-0.5)]
    expected = 4 * (half[0] - half[2]) / sum(half)
    found = LogitStandardized(temperature=2.0)(student, teacher, LABELS).item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_shift_and_scale_do_not_matter():
    logits = torch.randn(3, 5)
    assert LogitStandardized()(7 * logits - 3, logits, LABELS).item() == pytest.approx(0, abs=1e-5)
