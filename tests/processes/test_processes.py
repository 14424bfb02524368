"""Programs that end well, fail, crash, or do not end."""

import sys
import time
from pathlib import Path

import pytest

from edgekd.errors import ToolError
from edgekd.installed import missing_programs
from edgekd.processes import how_it_ended, run_json_module, run_tool


def run(script: str, limit_s: float = 20.0, **options):
    return run_tool(["sh", "-c", script], limit_s, "the tool", "model.onnx", **options)


def test_a_program_gets_its_input_and_folder_and_gives_both_streams(tmp_path: Path):
    done = run("cat; pwd; echo aside >&2", folder=tmp_path, stdin=b"in\0put\n")
    assert done.stdout == b"in\0put\n" + str(tmp_path).encode() + b"\n"
    assert done.stderr == b"aside\n"
    assert done.status == 0
    assert done.log.endswith(f"{tmp_path}\naside\n")
    assert done.require_success("the tool", "here") is done


def test_a_failure_is_reported_by_its_last_line():
    done = run("echo one; echo; echo 'the reason ' >&2; echo >&2; exit 3")
    assert done.lines == ["one", "the reason"]
    with pytest.raises(ToolError, match=r"the tool failed \(exit status 3\): the reason") as caught:
        done.require_success("the tool", "model.onnx")
    assert caught.value.where == "model.onnx"


def test_a_silent_crash_is_reported_by_its_signal():
    done = run("kill -SEGV $$")
    with pytest.raises(ToolError, match=r"the tool failed \(killed by SIGSEGV\): no output"):
        done.require_success("the tool", "model.onnx")
    assert how_it_ended(-200) == "killed by signal 200"


def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path: Path):
    with pytest.raises(ToolError, match=r"the tool did not end within 0\.3 s") as caught:
        run(f"(sleep 1; touch {tmp_path}/late) & sleep 60", 0.3, hint="raise the limit")
    assert caught.value.hint == "raise the limit"
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(ToolError, match="the tool could not be started") as caught:
        run_tool(["./no-such-program"], 1.0, "the tool", "model.onnx")
    assert caught.value.where == "./no-such-program"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module that a child process finds, and runs it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def run_module(source: str, *arguments: str):
        (tmp_path / "probe_module.py").write_text(source)
        return run_json_module("probe_module", tmp_path / "model", 20.0, "probe", *arguments)

    return run_module


def test_the_last_line_of_a_module_is_read_as_json(module, tmp_path: Path):
    source = "import json, sys\nprint('loading')\nprint(json.dumps({'argv': sys.argv[1:]}))\n"
    assert module(source, "4") == {"argv": [str(tmp_path / "model"), "4"]}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise SystemExit('no such layer')", r"probe failed \(exit status 1\): no such layer"),
        ("print('[1]')", r"probe failed \(exit status 0\): \[1\]"),
        ("", r"probe failed \(exit status 0\): no output"),
        (
            "import json, os\nprint(json.dumps({}), flush=True)\nos.abort()",
            r"probe failed \(killed by SIGABRT\)",
        ),
    ],
)
def test_a_module_that_gives_no_json_is_a_tool_error(module, source: str, message: str):
    with pytest.raises(ToolError, match=message):
        module(source)


def test_programs_that_are_missing_are_named_with_their_package():
    (fault,) = missing_programs({"sh": "dash", "no-such-tool": "some-package"}, "here")
    assert str(fault) == "here: no-such-tool is not installed"
    assert fault.hint == "apt install some-package"
