import io
from pathlib import Path

import pytest
from synthetic_report import artifact, float_parity, lsb_parity, synthetic_report, two_outputs, x86

from edgekd.report.terminal import parity_remarks, print_report, remarks
from edgekd.report.values import Report


def printed(report: Report, width: int | None = None) -> str:
    stream = io.StringIO()
    print_report(report, Path("runs/latest"), stream, width)
    return stream.getvalue()


def test_the_last_lines_are_the_verdict_and_the_page() -> None:
    lines = printed(synthetic_report()).splitlines()
    assert lines[-2:] == ["verdict: fail", "report:  runs/latest/report.html"]


def test_a_pipe_gets_plain_text() -> None:
    assert "\x1b" not in printed(synthetic_report())


def test_every_number_that_is_not_measured_says_its_kind() -> None:
    lines = printed(synthetic_report()).splitlines()
    (row,) = (line for line in lines if line.startswith(" model.tflite"))
    cells = row.split()
    assert row.count("(sim)") == 2
    assert cells[-4:] == ["10×", "128", "LSB", "FAIL"]  # noqa: RUF001
    (measured,) = (line for line in lines if line.startswith(" model.so"))
    assert "(" not in measured


def test_budgets_have_their_verdicts() -> None:
    text = " ".join(printed(synthetic_report()).split())
    assert "x86: model.onnx latency_ms_p90 ≤ 0.2 ms 0.0987 ms pass" in text
    assert "x86: model.onnx energy_mj ≤ 1 mJ – unverified" in text  # noqa: RUF001
    assert "raspberry-pi-5: model.onnx latency_ms_p90 ≤ 2 ms 1.18 ms (sim) unverified" in text


def test_why_a_value_is_missing_is_said_once_for_all_that_lack_it() -> None:
    text = " ".join(printed(synthetic_report()).split())
    assert text.count("no energy sensor: RAPL needs root") == 1
    assert "coral: no baseline: the Edge TPU runs int8 models only" in text
    assert "factorize: no accuracy: not evaluated before the next stage" in text
    assert "parity fails: stages.1.0.conv2 (conv2d): 71 LSB" in text


@pytest.mark.parametrize("width", [40, 60, 88, 110, 160])
def test_no_line_is_wider_than_the_terminal_and_the_speed_up_is_in_it(width: int) -> None:
    text = printed(synthetic_report(), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "faster" in text or width < 60


def test_no_header_is_broken_in_a_narrow_terminal() -> None:
    lines = [line.split() for line in printed(synthetic_report(), 60).splitlines()]
    assert ["model", "accuracy", "parameters", "bytes", "time"] in lines


def test_a_long_path_stays_in_one_piece() -> None:
    stream = io.StringIO()
    folder = Path("/" + "folder/" * 30)
    print_report(synthetic_report(), folder, stream, 60)
    assert f"report:  {folder}/report.html" in stream.getvalue()


def test_a_name_in_brackets_is_no_markup() -> None:
    target = x86().model_copy(update={"artifacts": (artifact("a/[red]x.onnx", 10),)})
    text = printed(synthetic_report(name="[bold]m", targets=(target,)))
    assert "[red]x.onnx" in text
    assert "[bold]m on fashion-mnist" in text


def test_the_accuracy_of_a_stage_has_its_interval() -> None:
    (line,) = [line for line in printed(synthetic_report()).splitlines() if "distill" in line][:1]
    assert "93.77 %" in line
    assert "93.3 to 94.2" in line


def test_rounding_beyond_the_tolerance_that_was_accepted_is_a_remark() -> None:
    whole = synthetic_report()
    first = whole.targets[0].artifacts[0]
    rounded = lsb_parity((9000, 900, 90, 1, *[0] * 9), "pass", "no single layer: each is within")
    (line,) = parity_remarks(first.model_copy(update={"parity": rounded}))
    assert line == (
        "3 LSB, 2 allowed; rounding explains the difference: no single layer: each is within"
    )
    assert parity_remarks(first.model_copy(update={"parity": float_parity()})) == []


def test_a_failed_parity_of_the_teachers_file_is_a_remark() -> None:
    whole = synthetic_report()
    target = whole.targets[0]
    wrong = float_parity().model_copy(update={"verdict": "fail", "first_difference": "at 'stem'"})
    baseline = target.baseline.model_copy(update={"parity": wrong})
    target = target.model_copy(update={"baseline": baseline})
    shown = remarks(whole.model_copy(update={"targets": (target,)}))
    about = {text: subject for subject, text in shown}
    assert Path(baseline.path).name in about["parity fails: at 'stem'"]


def test_a_file_with_several_outputs_says_how_far_each_differs() -> None:
    text = " ".join(printed(synthetic_report(targets=(two_outputs(),)), 200).split())
    assert "inputs: ids: int64 ?x8, mask: float32 ?x8" in text
    assert "parity: logits 1 LSB, embedding 5e-01 rel FAIL" in text
    assert "parity fails: output 'embedding': mean" in text
