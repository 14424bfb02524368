"""Of several precisions of a format the fastest is chosen that holds the budgets."""

import io
from pathlib import Path
from typing import Any

import pytest
from synthetic_report import artifact, judged, latencies, synthetic_report

from edgekd.report.delivery import with_delivery
from edgekd.report.html import html
from edgekd.report.precisions import with_choices
from edgekd.report.terminal import print_report
from edgekd.report.values import ArtifactReport, Measurement, TargetReport
from edgekd.values.measurement import unavailable

FORMATS = {"onnx": "onnx", "so": "tvm-so", "tflite": "tflite"}


def file(precision: str, ms: float | None, drop: float, suffix: str = "onnx", **fields: Any) -> Any:
    """A file whose accuracy is 90 % less `drop` points, with an interval of 1 point each way."""
    accuracy = 0.90 - drop / 100
    table = {
        "format": FORMATS[suffix], "precision": precision, "accuracy": accuracy, "parity": None,
        "accuracy_ci": (accuracy - 0.01, accuracy + 0.01), "accuracy_drop": drop,
        "reasons": {"parity": "not compared"},
        "measurements": latencies(ms, over=4.0) if ms else (gone("latency_ms_p50"),),
        **fields,
    }  # fmt: skip
    return artifact(f"artifacts/x86/model_{precision}.{suffix}", 1000, **table)


def gone(metric: str) -> Measurement:
    return unavailable(metric, "no board", device="host")


def estimated(mj: float) -> tuple[Measurement, ...]:
    found = Measurement(metric="energy_estimate_mj", value=mj, kind="estimated", device="a formula")
    return (gone("latency_ms_p50"), found)


def within(drop: float) -> tuple:
    return (judged("accuracy_drop", 1.0, drop, "pass" if drop <= 1.0 else "fail"),)


def target_of(*files: ArtifactReport) -> TargetReport:
    reasons = {"baseline": "none"}
    return with_choices(TargetReport(name="x86", baseline=None, artifacts=files, reasons=reasons))


def chosen(*files: ArtifactReport) -> tuple[str, str]:
    (choice,) = target_of(*files).choices
    return choice.precision, choice.reason


def test_the_fastest_that_holds_every_budget_is_chosen_and_every_number_is_given() -> None:
    precision, reason = chosen(
        file("int8", 2.0, 0.3, budgets=within(0.3)),
        file("fp16", 3.3, 0.0, budgets=within(0.0)),
        file("fp32", 3.4, 0.0, budgets=within(0.0)),
    )
    assert precision == "int8"
    assert reason == (
        "int8 is chosen, the fastest that holds every budget: int8 2 ms, 0.30 points lost; "
        "fp16 3.3 ms, 0.00 points lost; fp32 3.4 ms, 0.00 points lost"
    )


def test_a_faster_one_that_breaks_the_accuracy_budget_is_passed_over() -> None:
    precision, reason = chosen(
        file("int8", 2.0, 1.4, budgets=within(1.4)),
        file("fp16", 2.9, 0.0, budgets=within(0.0)),
        file("fp32", 3.4, -0.1, budgets=within(-0.1)),
    )
    assert precision == "fp16"
    assert "int8 2 ms, 1.40 points lost (breaks accuracy_drop); " in reason
    assert reason.endswith("fp32 3.4 ms, 0.10 points won")


def test_of_two_that_are_equally_fast_the_smaller_is_chosen() -> None:
    fp16 = file("fp16", 3.42, 0.0, bytes=500)
    precision, reason = chosen(file("int8", 5.0, 0.0), fp16, file("fp32", 3.40, 0.0))
    assert precision == "fp32", "without an interval the values decide"
    ratios = [
        each.model_copy(update={"measurements": tuple(
            row.model_copy(update={"ci": (row.value * 0.98, row.value * 1.02)})
            if row.metric == "latency_ratio" else row for row in each.measurements
        )})
        for each in (fp16, file("fp32", 3.40, 0.0))
    ]  # fmt: skip
    precision, reason = chosen(*ratios)
    assert (precision, "the smallest of those as fast as fp32" in reason) == ("fp16", True)


@pytest.mark.parametrize(("drop", "precision"), [(0.9, "int8"), (1.1, "fp32")])
def test_without_an_accuracy_budget_the_float_files_interval_limits_it(
    drop: float, precision: str
) -> None:
    found, reason = chosen(file("int8", 2.0, drop), file("fp32", 3.4, 0.0))
    assert found == precision
    assert "as none limits accuracy, the float file's interval (from 89.00 %)" in reason
    assert ("(below the float file's interval)" in reason) == (precision == "fp32")


def test_where_none_holds_the_most_accurate_is_chosen() -> None:
    precision, reason = chosen(
        file("int8", 2.0, 3.0, budgets=within(3.0)), file("fp32", 3.4, 2.0, budgets=within(2.0))
    )
    assert precision == "fp32"
    assert reason.startswith("fp32 is chosen, the most accurate: none holds every budget: int8")


def test_a_precision_that_overflows_is_not_chosen() -> None:
    missing = ("accuracy", "accuracy_ci", "accuracy_drop")
    reasons = dict.fromkeys(("accuracy", "accuracy_drop", "parity"), "NaN")
    broken = file("fp16", 1.0, 0.0, reasons=reasons, **dict.fromkeys(missing))
    precision, reason = chosen(broken, file("fp32", 3.4, 0.0))
    assert (precision, "fp16 1 ms (NaN)" in reason) == ("fp32", True)


def test_without_latencies_the_least_estimated_energy_decides_and_is_called_an_estimate() -> None:
    precision, reason = chosen(
        file("int8", None, 0.1, measurements=estimated(0.2)),
        file("fp32", None, 0.0, measurements=estimated(0.9)),
    )
    assert precision == "int8"
    assert "the least estimated energy that holds" in reason
    assert "int8 0.2 mJ (est), 0.10 points lost" in reason


def test_without_any_cost_the_smallest_is_chosen_and_the_reason_says_why() -> None:
    small = file("fp16", None, 0.0, bytes=400)
    precision, reason = chosen(file("fp32", None, 0.0), small)
    assert precision == "fp16"
    assert "the smallest, because no latency was measured, that holds" in reason


def test_a_file_that_could_not_run_is_not_chosen_and_the_others_are_compared() -> None:
    precision, reason = chosen(
        file("int8", None, 0.0), file("fp16", 3.0, 0.0), file("fp32", 3.4, 0.0)
    )
    assert precision == "fp16"
    assert "int8 \u2013, 0.00 points lost (no latency_ms_p50); fp16 3 ms" in reason


def test_an_engines_source_follows_the_engine() -> None:
    engines = [
        file(precision, ms, 0.0).model_copy(
            update={"format": "tensorrt", "path": f"artifacts/orin/model_{precision}.engine"}
        )
        for precision, ms in (("int8", 3.0), ("fp16", 2.0))
    ]
    sources = [
        file(precision, None, 0.0).model_copy(update={"format": "tensorrt-onnx"})
        for precision in ("int8", "fp16")
    ]
    found = {one.format: one for one in target_of(*sources, *engines).choices}
    assert found["tensorrt"].precision == found["tensorrt-onnx"].precision == "fp16"
    assert found["tensorrt-onnx"].reason == "fp16 is chosen, as for tensorrt"


def test_one_precision_a_format_leaves_no_choice() -> None:
    assert target_of(file("int8", 1.0, 0.0), file("fp32", 1.0, 0.0, "so")).choices == ()


def run_of(deliver: Any) -> Any:
    target = target_of(
        file("int8", 2.0, 0.3), file("fp32", 3.4, 0.0),
        file("int8", 1.0, 0.3, "tflite"), file("fp32", 0.9, 0.0, "tflite"),
    )  # fmt: skip
    return with_delivery(synthetic_report(targets=(target,)), deliver)


@pytest.mark.parametrize(
    ("deliver", "names"),
    [
        ("recommended", ["model_fp32.tflite"]),
        ("all", ["model_int8.onnx", "model_fp32.tflite"]),
        (["onnx"], ["model_int8.onnx"]),
    ],
)
def test_precisions_that_are_passed_over_are_never_delivered(
    deliver: Any, names: list[str]
) -> None:
    (target,) = run_of(deliver).targets
    assert [Path(each.path).name for each in target.artifacts if each.delivered] == names


def test_the_table_and_the_page_mark_what_is_delivered_and_say_why() -> None:
    report = run_of("recommended")
    stream = io.StringIO()
    print_report(report, Path("runs/latest"), stream, 200)
    text = " ".join(stream.getvalue().split())
    assert "model_fp32.tflite (delivered)" in text
    assert "model_int8.onnx (delivered)" not in text
    assert "x86 onnx: int8 is chosen, the fastest that holds every budget" in text
    page = html(report)
    assert page.count("<strong>delivered</strong>") == 1
    assert "x86 tflite: fp32 is chosen" in " ".join(page.split()) or "fp32 is chosen" in page
