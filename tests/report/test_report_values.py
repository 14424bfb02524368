from typing import Any

import pytest
from pydantic import ValidationError
from synthetic_report import artifact, latencies, synthetic_report

from edgekd.report import TargetReport, TeacherReport
from edgekd.report.values import KEPT_SAMPLES, thinned
from edgekd.values.measurement import Measurement

TEACHER: dict[str, Any] = {"accuracy": 0.9, "parameters": 10, "macs": 5, "bytes": 40}


def test_a_missing_value_needs_its_reason() -> None:
    with pytest.raises(ValidationError, match="'macs' is missing: say why in reasons"):
        TeacherReport(**{**TEACHER, "macs": None})
    told = TeacherReport(**{**TEACHER, "macs": None, "reasons": {"macs": "a black box"}})
    assert told.macs is None


def test_a_reason_for_what_is_there_or_is_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="'macs' has a value and a reason"):
        TeacherReport(**{**TEACHER, "reasons": {"macs": "a black box"}})
    with pytest.raises(ValidationError, match=r"not a value here; did you mean 'macs'\?"):
        TeacherReport(**{**TEACHER, "reasons": {"mac": "a black box"}})


def test_an_accuracy_in_percent_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        TeacherReport(**{**TEACHER, "accuracy": 94.1})


def test_an_integer_file_that_computes_in_float_says_so_in_its_label() -> None:
    assert artifact("a/model.tflite", 100).label == "int8"
    partly = artifact("a/model.tflite", 100, facts={"operators_in_float": 7})
    assert partly.label == "int8 with 7 in float"


def test_a_target_without_a_baseline_says_why() -> None:
    with pytest.raises(ValidationError, match="'baseline' is missing"):
        TargetReport(name="coral", baseline=None, artifacts=())


@pytest.mark.parametrize(
    ("measurement", "message"),
    [
        (
            Measurement(metric="energy_mj", value=None, kind="unavailable", device="host"),
            "'energy_mj' has no value: say why",
        ),
        (
            Measurement(metric="energy_mj", value=float("nan"), kind="measured", device="host"),
            "'energy_mj' is nan: not a measurement",
        ),
    ],
)
def test_a_measurement_is_a_number_or_has_a_reason(measurement: Measurement, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        artifact("a.onnx", 1, measurements=(measurement,))


def test_long_samples_are_thinned_by_rank_and_say_so() -> None:
    samples = tuple(float(value) for value in reversed(range(10_001)))
    kept = thinned(samples, 11)
    assert kept == tuple(float(value) for value in range(0, 10_001, 1000))
    assert thinned(kept, 11) is kept
    (first, *_) = artifact("a.onnx", 1, measurements=latencies(1.0)).measurements
    assert len(first.samples) == KEPT_SAMPLES
    assert first.conditions["samples kept"] == "512, by rank"


def test_the_first_measurement_with_a_value_is_found() -> None:
    (target, *_) = synthetic_report().targets
    assert target.artifacts[0].measurement("latency_ms_p50") is not None
    assert target.artifacts[0].measurement("energy_mj") is None


def test_a_printed_report_has_a_line_for_each_file():
    report = synthetic_report()
    text = str(report)
    assert text.startswith(f"verdict: {report.verdict}\n")
    assert len(text.splitlines()) == 1 + sum(len(target.artifacts) for target in report.targets)
