"""Jensen-Shannon against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.js import JensenShannon

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
