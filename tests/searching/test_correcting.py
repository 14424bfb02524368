"""Predictions beside what the search's own files took, and how a result tells it."""

import pytest
from searches import file_of, made_search, trial_of

from edgekd.searching.correcting import corrections_of, table_uses
from edgekd.searching.outcome import PredictedFile, UntrainedFile
from edgekd.searching.page import page_of
from edgekd.searching.run import make_result
from edgekd.searching.text import result_lines
from edgekd.values.measurement import Measurement

P90 = "latency_ms_p90"


def cost(value, metric=P90, kind="measured"):
    return Measurement(metric=metric, value=value, kind=kind, device="host")


def predicted(value, metric="latency_ms_p50", format="onnx"):
    return PredictedFile(
        target="x86", format=format, precision="int8", sha256="a",
        cost=cost(value, metric, "estimated"), table_files=9, median_error=0.1, most_over=0.3,
    )  # fmt: skip


def trial(number, before, after=None, untrained=None, **keys):
    """A trial that was predicted at `before` and took `after` once trained."""
    files = []
    if after is not None:
        files = [file_of().model_copy(update={"measurements": (cost(after),)})]
    rows = ()
    if untrained is not None:
        rows = (
            UntrainedFile(target="x86", format="onnx", precision="int8", sha256="a",
                          measurements=(cost(untrained),)),
        )  # fmt: skip
    return trial_of(number, *files, predicted=(predicted(before),), untrained=rows, **keys)


def test_the_ratio_is_the_median_and_each_error_that_of_the_others_ratio():
    trials = [trial(0, 1.0, 2.0), trial(1, 2.0, 4.0), trial(2, 1.0, 1.6)]
    correction = corrections_of(trials)["x86", P90]
    assert (correction.files, correction.ratio) == (3, 2.0)
    # Without itself: 1.8 of (2, 1.6), twice, and 2 of (2, 2).
    assert correction.errors == pytest.approx((1.8 / 2 - 1, 1.8 / 2 - 1, 2 / 1.6 - 1))
    assert correction.margin == pytest.approx(1.25)
    assert not correction.is_trusted
    assert corrections_of([*trials, trial(3, 1.0, 2.0)])["x86", P90].is_trusted


def test_an_untrained_file_counts_where_the_trial_was_not_trained():
    trials = [trial(0, 1.0, 2.0, untrained=9.0), trial(1, 1.0, untrained=4.0), trial(2, 1.0)]
    assert corrections_of(trials)["x86", P90].ratio == 3.0  # the median of 2 and 4


def test_files_that_always_agree_leave_the_margin_of_noise():
    trials = [trial(number, 1.0, 1.0) for number in range(5)]
    assert corrections_of(trials)["x86", P90].margin == 1.05


def test_the_instructions_of_generated_c_are_compared_with_the_files_that_it_is_made_of():
    made = file_of(format="c").model_copy(
        update={"measurements": (cost(900.0, "instructions", "simulated"),)}
    )
    stored = file_of(format="tflite")
    before = predicted(1000.0, "instructions", "tflite")
    found = corrections_of([trial_of(0, stored, made, predicted=(before,))])
    assert found["x86", "instructions"].ratio == 0.9
    other = trial_of(0, file_of(format="tflite"), predicted=(predicted(1.0),))
    assert corrections_of([other]) == {}  # a latency of another format's file tells nothing


def refused(number, before):
    return trial(
        number, before, state="refused", where="cost table", message="x86: too slow",
        refused_by={"x86": {"latency_ms": 3.0}},
    )  # fmt: skip


LIMITS = {"latency_ms": 1.0, "size_kb": 50.0}


def test_a_result_tells_what_the_table_refused_and_how_well_it_predicted(tmp_path):
    trials = [trial(0, 1.0, 2.0), trial(1, 2.0, 4.0), trial(2, 1.0, 1.6), refused(3, 9.0)]
    (use,) = table_uses(trials, "x86", LIMITS)
    assert (use.metric, use.table_files, use.refused, use.compared) == (P90, 9, 1, 3)
    assert use.text == (
        "latency_ms_p90 by a table of 9 files (estimated; median error of files left out "
        "10.00 %): 1 trial refused; 3 files took 2 times as much; corrected by that, the median "
        "error is 10.00 %, the largest 25.00 %"
    )
    assert use.within_10_percent == pytest.approx(2 / 3)
    result = make_result(made_search(tmp_path, limits=LIMITS), trials, {})
    lines = result_lines(result)
    assert f"x86: {use.text}" in lines
    assert "trial 3 refused: x86: too slow" in lines
    page = page_of(result)
    assert use.text in page
    assert "x86: onnx (int8) predicted at 9 ms (estimated)" in page


def test_a_result_without_measured_files_says_that_nothing_corrects_the_table():
    (use,) = table_uses([refused(0, 9.0)], "x86", LIMITS)
    assert use.text.endswith("1 trial refused; no file was measured to correct it")


def test_without_predictions_there_is_nothing_to_tell():
    assert table_uses([trial_of(0, file_of())], "x86", LIMITS) == ()
