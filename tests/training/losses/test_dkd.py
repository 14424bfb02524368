"""Decoupled distillation against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.dkd import DKD

# softmax(TEACHER) = (0.5, 0.25, 0.25), softmax(STUDENT) = (1, 1, 1) / 3.
STUDENT, TEACHER = torch.zeros(1, 3), torch.tensor([[math.log(2.0), 0.0, 0.0]])


def test_the_target_part_is_the_hand_computed_one():
    expected = 0.5 * math.log(0.5 * 3) + 0.5 * math.log(0.5 * 3 / 2)
    loss = DKD(alpha=2.0, beta=5.0, temperature=1.0)
    assert loss(STUDENT, TEACHER, torch.tensor([0])).item() == pytest.approx(2 * expected, abs=1e-6)


def test_the_other_part_is_the_hand_computed_one():
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    loss = DKD(alpha=0.0, beta=5.0, temperature=1.0)
    assert loss(STUDENT, TEACHER, torch.tensor([1])).item() == pytest.approx(5 * expected, abs=1e-6)


def test_the_parts_add_up_to_kl_with_t_squared():
    from edgekd.training.losses.kl import KL

    student, teacher = torch.randn(1, 6), torch.randn(1, 6)
    label = torch.tensor([2])
    beta = 1 - torch.softmax(teacher / 3, dim=1)[0, 2].item()
    found = DKD(alpha=1.0, beta=beta, temperature=3.0)(student, teacher, label)
    assert torch.allclose(found, KL(temperature=3.0)(student, teacher, label), atol=1e-6)


def test_two_classes_have_no_other_part():
    loss = DKD(alpha=0.0)(torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, 0.0]]), torch.tensor([1]))
    assert loss.item() == 0.0


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="beta must not be negative, found -1"):
        DKD(beta=-1)
