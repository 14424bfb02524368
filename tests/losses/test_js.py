"""Jensen-Shannon against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.losses.js import JensenShannon

LABELS = torch.tensor([0])
STUDENT, TEACHER = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])


def test_the_value_is_the_hand_computed_one_with_t_squared():
    # T = 2: p_t = (0.7310586, 0.2689414), p_s = (0.5, 0.5), m = (0.6155293, 0.3844707).
    teacher = 0.7310586 * math.log(0.7310586 / 0.6155293) + 0.2689414 * math.log(
        0.2689414 / 0.3844707
    )
    student = 0.5 * math.log(0.5 / 0.6155293) + 0.5 * math.log(0.5 / 0.3844707)
    found = JensenShannon(temperature=2.0)(STUDENT, TEACHER, LABELS).item()
    assert found == pytest.approx(4 * (teacher + student) / 2, abs=1e-6)


def test_it_is_symmetric_and_at_most_ln_2():
    first, second = torch.tensor([[100.0, -100.0]]), torch.tensor([[-100.0, 100.0]])
    assert JensenShannon()(first, second, LABELS).item() == pytest.approx(math.log(2))
    assert torch.equal(
        JensenShannon()(STUDENT, TEACHER, LABELS), JensenShannon()(TEACHER, STUDENT, LABELS)
    )


def test_the_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 4, 1])
    loss = JensenShannon(temperature=2.0)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))


@pytest.mark.parametrize("count", [1, 4])
def test_equal_logits_give_zero_and_a_finite_gradient(count):
    student = torch.randn(count, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = JensenShannon(temperature=2.0)(
        student, student.detach().clone(), torch.zeros(count, dtype=torch.int64)
    )
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        JensenShannon(temperature=temperature)
