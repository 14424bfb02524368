"""Calibration samples that can't stand for what the network will see."""

import pytest
import torch

from edgekd.data.judged_calibration import judge

TRAINING = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def judged(samples, classes=10, of=10):
    return judge(samples, TRAINING, classes, of)


def test_enough_samples_like_the_training_samples_are_fine():
    found = judged(TRAINING[:64])
    assert (found.faults, found.warnings) == ((), ())


def test_one_sample_is_refused():
    (fault,) = judged(TRAINING[:1]).faults
    assert "one sample can't show the ranges" in str(fault)
    assert fault.hint == "calibration.samples = 256"


def test_few_samples_are_warned_about():
    (warning,) = judged(TRAINING[:8]).warnings
    assert "8 samples are few; 32 or more" in warning


@pytest.mark.parametrize(
    ("classes", "of", "words"),
    [
        (1, 10, "all 64 samples are of one class of 10"),
        (4, 10, "the samples are of 4 of 10 classes"),
        (5, 10, None),
        (64, 1000, None),  # as many as there are samples
        (None, 10, None),
        (1, 1, None),
    ],
)
def test_missing_classes_are_warned_about(classes, of, words):
    warnings = judged(TRAINING[:64], classes, of).warnings
    assert bool(warnings) is (words is not None)
    assert words is None or words in warnings[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_with_its_sample(value):
    samples = TRAINING[:64].clone()
    samples[7, 0, 0, 0] = value
    (fault,) = judged(samples).faults
    assert "sample 7 has NaN or infinite values" in str(fault)


def test_constant_and_equal_samples_are_refused():
    (constant,) = judged(torch.full((64, 3, 8, 8), 0.5)).faults
    assert "every value is 0.5" in str(constant)
    (equal,) = judged(TRAINING[:1].expand(64, -1, -1, -1)).faults
    assert "all 64 samples are equal" in str(equal)


def test_an_input_that_is_constant_in_training_may_be_so_in_calibration():
    ones = torch.ones(64, 4)
    assert (
        judge({"x": TRAINING[:64], "mask": ones}, {"x": TRAINING, "mask": ones}, 10, 10).faults
        == ()
    )


def test_samples_that_were_prepared_in_another_way_are_refused():
    (fault,) = judged(TRAINING[:64] * 60 + 120).faults
    assert "of other data, or prepared in another way: mean 119" in str(fault)
    assert "data.preprocess" in fault.hint


def test_samples_that_are_somewhat_apart_are_warned_about():
    (warning,) = judged(TRAINING[:64] * 0.9 + 1.0).warnings
    assert "mean 0.989" in warning
    assert "those of training samples are" in warning


def test_integers_are_not_compared():
    ids = torch.randint(0, 100, (64, 16))
    assert judge(ids, ids * 0, None, 10).faults == ()
