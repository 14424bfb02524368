"""The parity of a file with several outputs, each judged on its own grid."""

import numpy as np
import pytest

from edgekd.measure.outputs import joint_parity, main_output
from edgekd.measure.parity import compare


@pytest.mark.parametrize(
    ("names", "index"), [(["boxes", "logits"], 1), (["boxes", "scores"], 0), (["output"], 0)]
)
def test_the_main_output_is_the_logits_or_the_first(names: list[str], index: int) -> None:
    assert main_output(names) == index


def test_each_output_is_judged_on_its_own_grid() -> None:
    reference = np.array([[0.0, 1.0], [2.0, 3.0]])
    fine = compare(reference, reference + 0.3, scale=0.1)
    coarse = compare(reference, reference + 0.3, scale=0.3)
    parity = joint_parity({"logits": coarse, "boxes": fine}, "logits")
    assert (parity.max_lsb, parity.verdict) == (1.0, "fail")
    assert parity.outputs["logits"].verdict == "pass"
    assert parity.outputs["boxes"].max_lsb == pytest.approx(3.0)
    assert parity.first_difference.startswith("output 'boxes': ")


def test_a_single_output_has_no_list_of_outputs() -> None:
    parity = compare(np.ones((2, 2)), np.ones((2, 2)), scale=None)
    assert joint_parity({"output": parity}, "output") == parity


def test_indices_are_equal_or_not() -> None:
    reference = np.arange(4000).reshape(1000, 4)
    found = reference.copy()
    found[7, 2] += 500
    parity = compare(reference, found, scale=None)
    assert (parity.verdict, parity.max_relative) == ("pass", 1 / 4000)
    assert (parity.worst_sample, parity.worst_output, parity.worst_value) == (7, 2, 530.0)
    assert parity.reason == "integers: 1 of 4,000 differ"
    found[:4] += 1
    assert compare(reference, found, scale=None).verdict == "fail"
    flags = reference % 2 == 0
    assert compare(flags, ~flags, scale=None).mean_relative == 1.0
