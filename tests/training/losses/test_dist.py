"""DIST against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.dist import DIST

STUDENT = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]).log()
TEACHER = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]).log()
LABELS = torch.tensor([0, 0])
# Between classes: centred rows (-4, -1, 5) / 30 and (5, -1, -4) / 30, r = -39 / 42.
BETWEEN = 1 + 39 / 42


def test_a_batch_of_one_has_only_the_part_between_classes():
    found = DIST()(STUDENT[:1], TEACHER[:1], LABELS[:1]).item()
    assert found == pytest.approx(BETWEEN, abs=1e-6)


def test_both_parts_are_the_hand_computed_ones():
    # Within: columns (0.2, 0.5) against (0.5, 0.2) r = -1, constant r = 0, again r = -1.
    expected = 3 * BETWEEN + 2 * (1 + 2 / 3)
    found = DIST(beta=3.0, gamma=2.0)(STUDENT, TEACHER, LABELS).item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_logits_at_t_are_divided_and_the_loss_multiplied():
    expected = 4 * DIST()(STUDENT, TEACHER, LABELS)
    found = DIST(temperature=2.0)(2 * STUDENT, 2 * TEACHER, LABELS)
    assert torch.allclose(found, expected)
