"""Accuracy of outputs, and the drop against the original."""

import numpy as np
import pytest

from edgekd.errors import ToolError
from edgekd.measure.accuracy import accuracy_measurement, drop_measurement, scores_of


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
    assert scores_of(logits, np.array([0, 1, 0]), "m.onnx").tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(ToolError, match=r"m\.onnx: the outputs contain NaN or infinity"):
        scores_of(np.full((3, 3), np.nan), np.arange(3), "m.onnx")
    with pytest.raises(ToolError, match=r"outputs of shape \(3, 3\) for 2 samples"):
        scores_of(logits, np.arange(2), "m.onnx")


def test_scores_between_right_and_wrong_are_resampled_sample_by_sample() -> None:
    scores = np.array([0.25, 0.75] * 50)
    found = accuracy_measurement(scores, "host", metric="mean IoU")
    assert found.value == 0.5
    assert found.protocol == "mean IoU over 100 samples"
    # Normal approximation: every score lies 0.25 from the mean, so 1.96 * 0.25 / sqrt(100).
    assert found.ci == pytest.approx((0.451, 0.549), abs=0.012)
    drop = drop_measurement(scores, scores - 0.1, "host", metric="mean IoU")
    assert drop.value == pytest.approx(10.0)
    assert drop.ci == pytest.approx((10.0, 10.0)), "every pair drops by as much"
