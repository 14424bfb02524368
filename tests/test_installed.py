"""What is installed: modules found without importing them, versions of packages."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgekd.installed import has_module, tool_versions, versions_of
from edgekd.version import __version__


def test_a_module_is_found_and_not_imported(tmp_path, monkeypatch):
    (tmp_path / "some_runtime.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert has_module("some_runtime")
    assert "some_runtime" not in sys.modules


def test_a_module_of_a_package_that_is_not_there_is_none():
    assert not has_module("no_such_package")
    assert not has_module("no_such_package.module")


def test_a_folder_that_an_uninstall_left_behind_is_no_module(tmp_path, monkeypatch):
    (tmp_path / "some_runtime" / "__pycache__").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("some_runtime")  # Python takes it for a package
    assert not has_module("some_runtime")


def test_versions_are_of_what_is_there_and_edgekds_own_is_among_those_of_the_tools():
    assert set(versions_of(["numpy", "no-such-package"])) == {"numpy"}
    assert tool_versions()["edgekd"] == __version__


SWITCHES = ("ORT_DISABLE_TELEMETRY", "NNCF_CI")


def in_a_new_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PRINTED = (
    "import os; print(*(os.environ.get(name) for name in ('ORT_DISABLE_TELEMETRY', 'NNCF_CI')))"
)


def test_the_command_line_switches_telemetry_off():
    code = """
import sys
from edgekd.cli import main
sys.argv = ["edgekd", "--version"]
try:
    main()
except SystemExit:
    pass
"""
    assert in_a_new_process(code + PRINTED).endswith("1 1")


@pytest.mark.slow  # imports PyTorch
def test_the_api_switches_telemetry_off():
    code = """
import edgekd
try:
    edgekd.inspect("no-such-file.onnx")
except edgekd.EdgekdError:
    pass
"""
    assert in_a_new_process(code + PRINTED) == "1 1"


def test_importing_edgekd_sets_nothing():
    assert in_a_new_process(f"import edgekd\n{PRINTED}") == "None None"


def test_the_users_own_choice_about_telemetry_wins():
    code = f"from edgekd.installed import switch_telemetry_off as off; off()\n{PRINTED}"
    assert in_a_new_process(code, ORT_DISABLE_TELEMETRY="0") == "0 1"


@pytest.mark.parametrize(
    ("package", "file", "switch"),
    [
        ("nncf", "definitions.py", '"NNCF_CI"'),
        ("onnxruntime", "capi/onnxruntime_pybind11_state*.so", "ORT_DISABLE_TELEMETRY"),
    ],
)
def test_the_libraries_read_the_switches_that_are_set(package: str, file: str, switch: str):
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs {package}")
    (found,) = Path(spec.origin).parent.glob(file)
    assert switch.encode() in found.read_bytes()


def test_telemetry_is_switched_off_in_one_place():
    """The agent sets it too: it runs alone, on boards without edgekd."""
    root = Path(__file__).parents[1] / "edgekd"
    files = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "ORT_DISABLE_TELEMETRY" in path.read_text() or "NNCF_CI" in path.read_text()
    }
    assert files - {"devices/agent.py", "devices/ssh/scripts.py"} == {"installed.py"}
