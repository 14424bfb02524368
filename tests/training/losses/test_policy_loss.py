"""Policy distillation against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.policy import Policy

NONE = torch.zeros(1)


def test_only_the_teacher_is_softened():
    # softmax((2, 0) / 2) = (0.7310586, 0.2689414) against (0.5, 0.5): 0.1109441, without T^2.
    student = torch.zeros(1, 2, requires_grad=True)
    loss = Policy(temperature=2.0)(student, torch.tensor([[2.0, 0.0]]), NONE)
    loss.backward()
    assert loss.item() == pytest.approx(0.1109441, abs=1e-6)
    assert torch.allclose(student.grad, torch.tensor([[0.5 - 0.7310586, 0.5 - 0.2689414]]))


def test_it_is_zero_where_the_student_is_the_teacher_over_t():
    teacher = torch.randn(3, 4)
    assert Policy(temperature=0.01)(teacher / 0.01, teacher, NONE).item() == pytest.approx(0.0)


def test_the_other_forms_are_the_hand_computed_ones():
    student = torch.tensor([[0.0, math.log(3.0)]])
    teacher = torch.tensor([[1.0, 0.0]])
    assert Policy("nll")(student, teacher, NONE).item() == pytest.approx(math.log(4.0))
    assert Policy("mse")(student, teacher, NONE).item() == pytest.approx(
        (1 + math.log(3.0) ** 2) / 2
    )


def test_the_last_output_is_the_value_where_it_is_asked_for():
    student = torch.tensor([[0.0, 0.0, 3.0]], requires_grad=True)
    loss = Policy(value=0.5)(student, torch.tensor([[0.0, 0.0, 1.0]]), NONE)
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert torch.allclose(student.grad, torch.tensor([[0.0, 0.0, 2.0]]))
    with pytest.raises(ValueError, match="needs at least 3 outputs"):
        Policy(value=0.5).prepare((2,), (), (4,))
