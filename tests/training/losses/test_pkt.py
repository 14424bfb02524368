"""Probabilistic knowledge transfer against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.pkt import PKT


def test_the_value_is_the_hand_computed_one():
    # The student sees three equal samples, q = (1/2, 1/2) each. The teacher's K: ab = ac = 1/2,
    # bc = 1, so p is (1/2, 1/2) for a and (1/3, 2/3) for b and c.
    student, teacher = torch.ones(3, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    expected = 2 / 3 * (1 / 3 * math.log(2 / 3) + 2 / 3 * math.log(4 / 3))
    assert PKT()(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_opposite_samples_give_a_finite_loss():
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = PKT()(student, torch.randn(3, 4))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
