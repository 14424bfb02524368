"""Hinton's KL against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.kl import KL

LABELS = torch.tensor([0])
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])


def test_the_value_is_the_hand_computed_one_with_t_squared():
    # T = 2: p_t = softmax(1, 0) = (0.7310586, 0.2689414), p_s = (0.5, 0.5);
    # KL = 0.7310586 ln(1.4621172) + 0.2689414 ln(0.5378828) = 0.1109441; times 4 = 0.4437763.
    assert float(KL(temperature=2.0)(STUDENT, TEACHER, LABELS)) == pytest.approx(
        0.4437763, abs=1e-6
    )


def test_the_value_at_temperature_one_is_plain_kl():
    # p_t = (0.8807971, 0.1192029): 0.8807971 ln(1.7615942) + 0.1192029 ln(0.2384058) = 0.3278133
    assert float(KL(temperature=1.0)(STUDENT, TEACHER, LABELS)) == pytest.approx(
        0.3278133, abs=1e-6
    )


def test_the_gradient_is_t_times_the_difference_of_probabilities():
    student = STUDENT.clone().requires_grad_()
    KL(temperature=2.0)(student, TEACHER, LABELS).backward()
    assert torch.allclose(student.grad, 2 * torch.tensor([[0.5 - 0.7310586, 0.5 - 0.2689414]]))
