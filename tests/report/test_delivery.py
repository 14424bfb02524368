"""The verdict is about what is delivered: the recommended file, all, or some backends' files."""

import io
from pathlib import Path

import pytest
from synthetic_report import artifact, judged, latencies, synthetic_report

from edgekd.report.delivery import delivered, with_delivery
from edgekd.report.numbers import lead, verdict_of
from edgekd.report.overruns import overrun_lines
from edgekd.report.terminal import print_report
from edgekd.report.values import Report, TargetReport


def budget(size: float) -> tuple:
    return (judged("size_kb", 64, size, "pass" if size <= 64 else "fail"),)


def run_of(**files: tuple[float, float]) -> Report:
    """A run for one target whose files have a latency in ms and a size in kB, 64 kB allowed."""
    formats = {"so": "tvm-so", "onnx": "onnx", "tflite": "tflite"}
    made = tuple(
        artifact(f"artifacts/x86/model.{suffix}", int(1000 * size), format=formats[suffix],
                 measurements=latencies(ms, over=1.0), budgets=budget(size))
        for suffix, (ms, size) in files.items()
    )  # fmt: skip
    target = TargetReport(name="x86", baseline=None, artifacts=made,
                          reasons={"baseline": "none"})  # fmt: skip
    return synthetic_report(targets=(target,))


def names(report: Report) -> list[str]:
    return [Path(each.path).name for each in delivered(report.targets[0])]


def test_the_fastest_file_that_holds_every_budget_is_delivered() -> None:
    report = with_delivery(run_of(so=(0.1, 900), onnx=(0.3, 24), tflite=(0.2, 24)), "recommended")
    assert names(report) == ["model.tflite"]
    assert verdict_of(delivered(report.targets[0])) == "pass"
    assert lead(report, report.targets[0]) is report.targets[0].artifacts[2]


def test_a_large_library_beside_it_breaks_no_budget_but_its_own() -> None:
    report = with_delivery(run_of(so=(0.1, 900), tflite=(0.2, 24)), "recommended")
    assert overrun_lines(report) == []
    stream = io.StringIO()
    print_report(report, Path("runs/latest"), stream, 200)
    text = " ".join(stream.getvalue().split())
    assert "x86: model.so (not delivered) size_kb ≤ 64" in text


def test_with_all_the_library_fails_the_run() -> None:
    report = with_delivery(run_of(so=(0.1, 900), tflite=(0.2, 24)), "all")
    assert names(report) == ["model.so", "model.tflite"]
    assert verdict_of(delivered(report.targets[0])) == "fail"
    assert len(overrun_lines(report)) == 1


@pytest.mark.parametrize(("backend", "verdict"), [("tvm", "fail"), ("tflite", "pass")])
def test_a_list_of_backends_delivers_their_files(backend: str, verdict: str) -> None:
    report = with_delivery(run_of(so=(0.1, 900), tflite=(0.2, 24)), [backend])
    assert verdict_of(delivered(report.targets[0])) == verdict


def test_where_none_holds_the_recommended_file_fails() -> None:
    report = with_delivery(run_of(so=(0.1, 900), tflite=(0.2, 100)), "recommended")
    assert len(names(report)) == 1
    assert verdict_of(delivered(report.targets[0])) == "fail"


def test_a_file_that_passes_is_preferred_to_a_faster_one_that_nothing_verified() -> None:
    report = run_of(onnx=(0.1, 24), tflite=(0.2, 24))
    first, second = report.targets[0].artifacts
    unknown = judged("energy_mj", 1.0, None, "unverified", kind="unavailable", reason="no sensor")
    target = report.targets[0].model_copy(
        update={"artifacts": (first.model_copy(update={"budgets": (unknown,)}), second)}
    )
    marked = with_delivery(report.model_copy(update={"targets": (target,)}), "recommended")
    assert names(marked) == ["model.tflite"]
