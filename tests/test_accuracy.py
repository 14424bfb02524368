"""Accuracy of outputs, and the drop against the original."""

import numpy as np
import pytest

from edgekd.accuracy import accuracy_measurement, correct_of, drop_measurement
from edgekd.errors import ToolError


def test_accuracy_is_the_share_of_right_samples_within_its_interval() -> None:
    correct = np.array([True] * 75 + [False] * 25)
    found = accuracy_measurement(correct, "host")
    assert found.value == 0.75
    assert found.ci is not None
    # Normal approximation: 0.75 +- 1.96 sqrt(0.75 * 0.25 / 100), to the bootstrap's own error.
    assert found.ci == pytest.approx((0.665, 0.835), abs=0.015)
    assert found == accuracy_measurement(correct, "host")


def test_a_perfect_model_has_no_spread() -> None:
    assert accuracy_measurement(np.ones(10, bool), "host").ci == (1.0, 1.0)


def test_the_drop_counts_what_is_lost_and_what_is_won() -> None:
    original = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    correct = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0], bool)
    found = drop_measurement(original, correct, "host")
    assert found.metric == "accuracy_drop"
    assert found.value == pytest.approx(100 * (3 - 1) / 10), "percentage points"
    same = drop_measurement(original, original, "host")
    assert (same.value, same.ci) == (0.0, (0.0, 0.0))


def test_outputs_that_are_not_finite_or_not_one_a_label_are_a_tools_failure() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert correct_of(logits, np.array([0, 1, 0]), "m.onnx").tolist() == [True, True, False]
    with pytest.raises(ToolError, match=r"m\.onnx: the outputs have values that are not finite"):
        correct_of(np.full((3, 3), np.nan), np.arange(3), "m.onnx")
    with pytest.raises(ToolError, match=r"outputs of shape \(3, 3\) for 2 labels"):
        correct_of(logits, np.arange(2), "m.onnx")
