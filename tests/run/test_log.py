"""log.txt holds in full what a tool said, where an error's hint sends the user to it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.errors import EdgekdError, Faults, InputError, ToolError, unexpected_error
from edgekd.run.compress import run_plan
from edgekd.run.log import append_errors, write_log
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.values.progress import silent
from edgekd.values.target import load_target

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, widths = [8, 8, 8] }
[data]
source = "few.npz"
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plans a network without stages for this machine and the backends given."""
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    y = np.arange(20) % 10
    x = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "r.toml").write_text(RECIPE)

    def plan(*backends: str):
        only = {"name": "own", "backends": {each: {} for each in backends}}
        target = load_target("x86").model_copy(update=only)
        asked = {"target": target, "out": tmp_path / "out", "quick": True}
        return make_plan(make_request(tmp_path / "r.toml", asked))

    return plan


def crash(*_arguments: object) -> None:
    raise RuntimeError("no lowering for aten.fold\nthe second line has the cause")


def fail(*_arguments: object) -> None:
    raise ToolError("the converter failed", where="onnx", detail="pass 1: ok\npass 2: no fold")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (crash, ["RuntimeError: no lowering for aten.fold", "    the second line has the cause"]),
        (fail, ["error: onnx: the converter failed", "    pass 1: ok", "    pass 2: no fold"]),
    ],
)
def test_a_plan_that_a_compiler_refuses_leaves_its_whole_message(
    planned, tmp_path, monkeypatch, fault, words
):
    monkeypatch.setattr(Onnx, "compile", fault)
    with pytest.raises(EdgekdError) as caught:
        planned("onnx")
    assert caught.value.exit_code == 3
    log = (tmp_path / "out" / "log.txt").read_text()
    assert all(line in log for line in words), log
    if fault is crash:
        assert caught.value.hint == "log.txt in the output folder has the whole message"
        assert "Traceback" not in str(caught.value)
        assert "Traceback" in log


@pytest.mark.slow
def test_a_run_without_one_backend_keeps_the_whole_message_in_its_log(
    planned, tmp_path, monkeypatch
):
    monkeypatch.setattr(Tflite, "compile", crash)
    plan = planned("onnx", "tflite")
    assert "the second line has the cause" in (tmp_path / "out" / "log.txt").read_text()
    report = run_plan(plan, silent)
    assert [each.backend for each in report.targets[0].failures] == ["tflite"]
    log = (tmp_path / "out" / "log.txt").read_text()
    assert log.startswith("data: few.npz")
    assert "error: own: no file of backend 'tflite': backends.tflite" in log
    assert "    the second line has the cause" in log


def test_the_log_of_a_run_has_its_failures_in_full(tmp_path):
    error = ToolError("it failed", where="backends.tvm", detail="one\n\ntwo\n")
    report: Any = SimpleNamespace(plan=("data: digits",), stages=())
    write_log(tmp_path, report, {"pi": {"tvm": error}})
    lines = (tmp_path / "log.txt").read_text().splitlines()
    start = lines.index("error: pi: no file of backend 'tvm': backends.tvm: it failed")
    assert lines[start + 1 :] == ["    one", "", "    two"]


def test_errors_are_added_behind_what_the_log_holds_and_others_add_nothing(tmp_path):
    append_errors(tmp_path / "out", [InputError("no such file")])
    assert not (tmp_path / "out").exists()
    (tmp_path / "log.txt").write_text("data: digits\n")
    append_errors(tmp_path, [Faults([InputError("wrong"), ToolError("failed", detail="why")])])
    assert (tmp_path / "log.txt").read_text() == "data: digits\nerror: failed\n    why\n"


def test_a_folder_that_can_not_be_written_to_hides_no_error():
    append_errors(Path("/proc/nope"), [ToolError("failed", detail="why")])


def test_an_exception_becomes_an_error_with_its_traceback_as_detail():
    try:
        crash()
    except RuntimeError as raised:
        error = unexpected_error(raised, "backends.x", "the backend 'x'")
    assert str(error) == (
        "backends.x: the backend 'x' fails on this network: RuntimeError: no lowering for aten.fold"
    )
    assert error.detail.startswith("Traceback")
    assert error.detail.rstrip().endswith("the second line has the cause")
