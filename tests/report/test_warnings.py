"""A file that compressing has not helped carries a warning, wherever it is shown."""

import io
from pathlib import Path

from synthetic_report import artifact, latencies, synthetic_report, x86

from edgekd.report.advice import warnings_for
from edgekd.report.html import html
from edgekd.report.terminal import print_report
from edgekd.report.values import StageReport

TEXT = "slower than the teacher's own file: 0.8 times its speed"


def stage(kind: str, line: str, size: int) -> StageReport:
    return StageReport(kind=kind, cached=False, seconds=1, accuracy=0.9, parameters=1, macs=1,
                       bytes=size, line=line)  # fmt: skip


STAGES = (
    stage("distill", "distill: kl, 12 epochs", 400_000),
    stage("quantize", "quantize: int8, QAT, 3 epochs", 100_000),
)


def test_an_int8_file_as_large_as_its_float_weights_is_warned_about() -> None:
    (text,) = warnings_for(artifact("model.onnx", 400_000), STAGES, 4_000_000)
    assert text.startswith("labelled int8, but its 400,000 bytes are not fewer than the 400,000")
    assert warnings_for(artifact("model.onnx", 399_999), STAGES, 4_000_000) == ()


def test_a_float_file_may_be_as_large_as_its_weights() -> None:
    assert warnings_for(artifact("m.so", 500_000, precision="fp32"), STAGES, 500_000) == ()


def test_without_a_float_stage_the_teachers_size_counts() -> None:
    assert warnings_for(artifact("model.onnx", 9), STAGES[1:], 9) != ()
    assert warnings_for(artifact("model.onnx", 9), STAGES[1:], None) == ()


def test_a_file_slower_than_the_teachers_is_warned_about() -> None:
    (text,) = warnings_for(artifact("m.onnx", 9, measurements=latencies(1.0, over=0.8)), (), None)
    assert text.startswith(TEXT)
    fast = artifact("m.onnx", 9, measurements=latencies(1.0, over=1.2))
    assert warnings_for(fast, (), None) == ()


def test_the_warning_is_in_the_table_the_notes_and_the_page() -> None:
    target = x86()
    slow = target.artifacts[0].model_copy(update={"warnings": (TEXT,)})
    report = synthetic_report(targets=(target.model_copy(update={"artifacts": (slow,)}),))
    stream = io.StringIO()
    print_report(report, Path("runs/latest"), stream, None)
    assert " model.onnx (!) " in stream.getvalue()
    assert f"warning: {TEXT}" in " ".join(stream.getvalue().split())
    assert html(report).count("0.8 times its speed") >= 2
