"""Several classes per sample, by hand-computed numbers."""

import math

import pytest
import torch

from edgekd.data.tasks.multilabel import Multilabel

TASK = Multilabel()
LOGITS = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])
Y = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, -1]])


def test_the_score_is_the_f1_of_the_known_classes():
    # 2 hits, 1 missed: 4 / 5; nothing there, nothing found: 1; 1 hit, 1 wrong: 2 / 3
    assert TASK.score(LOGITS, Y).tolist() == pytest.approx([0.8, 1.0, 2 / 3])


def test_the_loss_is_the_mean_over_the_known_classes():
    logits, y = torch.zeros(2, 2), torch.tensor([[1, -1], [0, 1]])
    assert float(TASK.label_loss(logits, y)) == pytest.approx(math.log(2))
    surely = torch.tensor([[100.0, -100.0]])
    assert float(TASK.label_loss(surely, torch.tensor([[1, -1]]))) == pytest.approx(0, abs=1e-6)


def test_smoothing_moves_targets_to_the_middle():
    loss = TASK.label_loss(torch.tensor([[2.0]]), torch.tensor([[1]]), smoothing=0.2)
    expected = 0.9 * math.log(1 + math.exp(-2)) + 0.1 * math.log(1 + math.exp(2))
    assert float(loss) == pytest.approx(expected)


def test_a_network_agrees_with_itself():
    assert TASK.agreement(LOGITS, LOGITS).tolist() == [1.0, 1.0, 1.0]


def test_targets_other_than_zero_one_and_unknown_are_refused():
    (fault,) = TASK.target_faults(torch.tensor([[0, 1], [2, 0]]), 2, "data")
    assert "the targets of sample 1 are [2, 0]" in fault.message
    (fault,) = TASK.target_faults(torch.tensor([0, 1]), 2, "data")
    assert fault.allowed == "(N, 2) of 0, 1 and -1"


def test_there_are_as_many_classes_as_columns():
    assert TASK.classes_in(Y) == 3
    assert TASK.output_fault(LOGITS, Y, 3, "model") is None
    fault = TASK.output_fault(LOGITS[:, :2], Y, 3, "model")
    assert fault is not None
    assert "one logit per class" in fault.allowed
