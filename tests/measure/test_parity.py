import numpy as np
import pytest
import torch

from edgekd.errors import ToolError
from edgekd.measure.parity import (
    LSB_EDGES,
    RELATIVE_EDGES,
    Parity,
    compare,
    rounding_adds_up,
)


def test_differences_are_counted_in_steps_of_the_output_scale() -> None:
    reference = np.array([[0.0, 0.5, 1.0], [0.0, 2.0, 1.0]])
    outputs = np.array([[0.0, 0.5, 1.25], [0.0, 1.5, 2.25]])
    parity = compare(reference, outputs, 0.25, tolerance=5)
    # Steps: 0, 0, 1 and 0, 2, 5.
    assert (parity.max_lsb, parity.mean_lsb) == (5.0, 8 / 6)
    assert parity.histogram.edges == LSB_EDGES
    assert parity.histogram.counts == (3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert (parity.worst_sample, parity.worst_output) == (1, 2)
    assert (parity.worst_reference, parity.worst_value) == (1.0, 2.25)
    assert parity.top1_agreement == 0.5
    assert (parity.samples, parity.verdict, parity.tolerance) == (2, "pass", 5.0)
    assert parity.max_relative is None
    assert compare(reference, outputs, 0.25, tolerance=4).verdict == "fail"


def test_two_steps_pass_and_three_fail_where_the_target_says_nothing() -> None:
    zero = np.zeros((1, 2))
    assert compare(zero, np.array([[0.0, 0.2]]), 0.1).verdict == "pass"
    assert compare(zero, np.array([[0.0, 0.3]]), 0.1).verdict == "fail"


def test_what_float32_leaves_beside_a_step_is_no_difference() -> None:
    scale = np.float32(0.0187)
    steps = np.arange(-128, 128).reshape(1, -1)
    reference = (steps.astype(np.float32) * scale).astype(np.float32)
    parity = compare(reference, steps * float(scale), float(scale))
    assert parity.max_lsb == 0.0
    assert parity.histogram.counts[0] == 256


def test_a_float_artifact_has_a_relative_error_and_no_lsb() -> None:
    parity = compare(torch.tensor([[1.0, -4.0]]), np.array([[1.002, -4.0]]), None)
    assert parity.max_lsb is None
    assert "no LSB" in parity.reason
    assert parity.max_relative == pytest.approx(0.0005, rel=1e-6)
    assert parity.mean_relative == pytest.approx(0.00025, rel=1e-6)
    assert parity.histogram.unit == "relative"
    assert dict(zip(RELATIVE_EDGES, parity.histogram.counts, strict=True)) == {
        **dict.fromkeys(RELATIVE_EDGES, 0),
        0.0: 1,
        1e-4: 1,
    }
    assert parity.verdict == "pass"
    assert compare([[1.0, -4.0]], [[1.0, -4.1]], None).verdict == "fail"


def test_a_tolerance_in_lsb_is_refused_where_there_is_no_scale() -> None:
    with pytest.raises(ValueError, match="a relative tolerance of 2 accepts anything"):
        compare([[1.0, -4.0]], [[9.0, 9.0]], None, tolerance=2.0)


def test_outputs_that_are_not_finite_never_pass_and_are_named() -> None:
    parity = compare(np.zeros((2, 2)), np.array([[0.0, 0.0], [np.nan, np.inf]]), 0.1)
    assert parity.verdict == "fail"
    assert parity.reason.startswith("2 outputs are NaN or infinite")
    assert (parity.max_lsb, parity.worst_value) == (None, None)
    assert (parity.worst_sample, parity.worst_output) == (1, 0)
    assert sum(parity.histogram.counts) == 2


def test_one_output_a_sample_has_no_top_class() -> None:
    assert compare(np.ones((3, 1)), np.ones((3, 1)), None).top1_agreement is None
    assert compare(np.ones(3), np.ones(3), None).top1_agreement is None


def test_a_map_of_classes_agrees_by_position() -> None:
    reference = np.zeros((1, 2, 1, 4))
    reference[0, 1, 0, :2] = 1.0
    outputs = reference.copy()
    outputs[0, 1, 0, 0] = -1.0
    assert compare(reference, outputs, 1.0).top1_agreement == 0.75


@pytest.mark.parametrize(
    ("reference", "outputs", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), "shape (2, 4), its reference (2, 3)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "shape (0, 3)"),
        (np.array([[np.nan]]), np.zeros((1, 1)), "the reference itself has NaN"),
    ],
)
def test_what_can_not_be_compared_is_refused(
    reference: np.ndarray, outputs: np.ndarray, message: str
) -> None:
    with pytest.raises(ToolError) as caught:
        compare(reference, outputs, 1.0)
    assert message in str(caught.value)


def test_a_parity_survives_json() -> None:
    parity = compare(np.eye(3), np.eye(3) + 0.1, 0.1)
    assert Parity.model_validate_json(parity.model_dump_json()) == parity


def test_embeddings_of_length_one_are_held_by_the_distance_of_the_vectors() -> None:
    """(3, 4) / 5 against (4, 3) / 5: the difference is (1, -1) / 5, whose length is 0.2828."""
    reference, outputs = np.array([[0.6, 0.8], [1.0, 0.0]]), np.array([[0.8, 0.6], [1.0, 0.0]])
    parity = compare(reference, outputs, None, 0.3)
    assert parity.max_relative == pytest.approx(0.28284, abs=1e-5)
    assert parity.mean_relative == pytest.approx(0.14142, abs=1e-5)
    assert (parity.verdict, parity.worst_sample) == ("pass", 0)
    assert sum(parity.histogram.counts) == 2, "one distance a sample"
    assert compare(reference, outputs, None, 0.28).verdict == "fail"


def test_many_small_errors_of_an_embedding_add_up_to_an_angle() -> None:
    """512 components of 0.0442, each 0.002 away: 5 % of the largest, and a distance of 0.045."""
    chance = np.random.default_rng(0)
    reference = np.sign(chance.standard_normal((4, 512))) / np.sqrt(512)
    outputs = reference + 0.002 * np.sign(chance.standard_normal((4, 512)))
    assert compare(reference, outputs, None, 0.05).max_relative == pytest.approx(0.04525, abs=1e-4)
    swapped = np.roll(reference, 1, axis=0)
    assert compare(reference, swapped, None, 0.05).verdict == "fail"


def test_an_embedding_that_is_not_finite_fails() -> None:
    reference = np.array([[0.6, 0.8], [0.8, 0.6]])
    parity = compare(reference, np.array([[0.6, 0.8], [np.nan, 0.6]]), None)
    assert (parity.verdict, parity.worst_sample, parity.worst_output) == ("fail", 1, 0)
    assert sum(parity.histogram.counts) == 1


def strays(worst: int, count: int, flip: bool = False) -> tuple[Parity, np.ndarray, np.ndarray]:
    """1000 samples of 10 outputs on a grid of 0.1, `count` of which lie `worst` LSB away."""
    reference = np.zeros((1000, 10))
    reference[:, 3] = 9.0
    outputs = reference.copy()
    outputs[:count, 5] += 0.1 * worst
    if flip:
        outputs[-1, 6] = 9.1
    return compare(reference, outputs, 0.1), reference, outputs


@pytest.mark.parametrize(
    ("worst", "count", "flip", "adds_up"),
    [
        (3, 10, False, True),  # one in a thousand outputs
        (3, 11, False, False),  # more than one in a thousand
        (4, 1, False, True),
        (5, 1, False, False),  # more than twice the tolerance
        (3, 1, True, False),  # a decision differs
    ],
)
def test_few_outputs_a_little_beyond_the_tolerance_may_be_rounding(
    worst: int, count: int, flip: bool, adds_up: bool
) -> None:
    parity, reference, outputs = strays(worst, count, flip)
    assert parity.verdict == "fail"
    assert rounding_adds_up(parity, reference, outputs) is adds_up


def test_a_float_file_has_no_rounding_that_adds_up() -> None:
    reference, outputs = np.eye(2) * 3, np.eye(2) * 3.004
    assert not rounding_adds_up(compare(reference, outputs, None, 1e-3), reference, outputs)
