"""The agent where Python or numpy is old: on Python 3.8, and with tflite-runtime on numpy 1."""

import ast
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices.session import AgentDevice
from edgekd.devices.transport import AGENT, LocalTransport
from edgekd.errors import ToolError
from edgekd.store import cache_folder
from edgekd.values.artifact import Artifact

OLD_PACKAGES = ("tflite-runtime==2.14.0", "numpy==1.26.4")


@functools.cache
def pythons() -> dict[tuple[int, ...], str]:
    """Every Python from 3.8 up that this machine has, by its version, the oldest first."""
    named = [shutil.which(f"python3.{minor}") for minor in range(8, 14)]
    kept = Path.home().glob(".pyenv/versions/3.*/bin/python3")
    found = {}
    for python in map(str, [*filter(None, named), *kept]):  # what is kept wins over its slow stub
        told = re.search(r"(?:python|versions/)(3)\.(\d+)", python)
        if told and int(told[2]) >= 8:
            found[int(told[1]), int(told[2])] = python
    found[sys.version_info[:2]] = sys.executable
    return {version: found[version] for version in sorted(found) if runs(found[version], version)}


def runs(python: str, version: tuple[int, ...]) -> bool:
    """Whether it is there and what its name says: a name may be a stub that chooses none."""
    script = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-I", "-S", "-c", script], capture_output=True, text=True)
    return done.stdout.split() == [str(number) for number in version]


@pytest.fixture(scope="session")
def oldest() -> tuple[tuple[int, ...], str]:
    version, python = next(iter(pythons().items()))
    if version >= sys.version_info[:2]:
        pytest.skip("no older Python here")
    return version, python


def test_the_agent_is_python_3_8() -> None:
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    runtimes = {"numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tvm", "tensorrt"}
    assert imported <= set(sys.stdlib_module_names) | runtimes
    top = {type(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert top, "what is imported at once is the standard library's"
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= set(sys.stdlib_module_names)


def test_an_older_python_runs_the_agent_and_tells_what_is_missing(
    oldest: tuple[tuple[int, ...], str],
) -> None:
    version, python = oldest
    lines = '{"command": "hello"}\n{"command": "clock"}\n' + json.dumps(
        {"command": "load", "runtime": "onnxruntime", "path": str(AGENT)}
    )
    command = [python, "-I", "-S", str(AGENT)]  # without whatever is installed there
    done = subprocess.run(command, input=lines + "\n", capture_output=True, text=True, timeout=60)
    hello, clock, missing = map(json.loads, done.stdout.splitlines())
    assert tuple(map(int, hello["ok"]["python"].split(".")[:2])) == version
    assert set(hello["ok"]["runtimes"].values()) == {""}
    assert hello["ok"]["numpy"] == ""
    assert hello["ok"]["install"]["litert"].startswith("pip install")
    assert clock["ok"]["now_ns"] > 0
    assert missing["error"]["kind"] == "missing-runtime"
    assert missing["error"]["hint"] == "pip install onnxruntime"
    assert done.returncode == 0


def test_the_watcher_ends_what_it_watches_on_an_older_python(
    oldest: tuple[tuple[int, ...], str],
) -> None:
    command = [oldest[1], str(AGENT), "--watch", "60", "--", "sleep", "600"]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert watcher.stdin is not None
    watcher.stdin.close()
    assert watcher.wait(20) == 3


@pytest.fixture(scope="session")
def old_environment() -> Path:
    """Python with tflite-runtime 2.14 and numpy 1.26, kept in the cache by what is in it."""
    fitting = [(version, python) for version, python in pythons().items()
               if (3, 9) <= version < (3, 12)]  # fmt: skip
    if not fitting:
        pytest.skip("tflite-runtime needs a Python from 3.9 to 3.11")
    version, base = fitting[-1]
    key = hashlib.sha256(json.dumps([OLD_PACKAGES, version]).encode()).hexdigest()[:16]
    folder = cache_folder() / "environments" / f"tflite-runtime-{key}"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        done = subprocess.run([*pip, *OLD_PACKAGES], capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(folder)
            pytest.skip(f"offline? pip: {done.stderr.strip().splitlines()[-1]}")
        (folder / "whole").touch()
    return python


@pytest.fixture
def old(old_environment: Path) -> Iterator[AgentDevice]:
    transport = LocalTransport([str(old_environment), "-u"], AGENT)
    device = AgentDevice("old board", "measured", transport, limit_s=60.0)
    yield device
    device.close()


@pytest.mark.slow
def test_an_old_board_tells_its_versions(old: AgentDevice, artifact: Artifact) -> None:
    hello = old.hello()
    assert hello.numpy == "1.26.4"
    assert hello.runtimes["litert"] == "tflite-runtime 2.14.0"
    assert hello.runtimes["onnxruntime"] == ""
    assert old.can_run(artifact) == "old board has no onnxruntime (pip install onnxruntime)"


@pytest.mark.slow
@pytest.mark.parametrize(("kernels", "steps"), [("optimized", 1), ("reference", 0)])
def test_tflite_runtime_gives_the_outputs_of_its_successor(
    old: AgentDevice, host: AgentDevice, int8_convolution: Artifact, kernels: str,
    steps: int,
) -> None:  # fmt: skip
    """The optimized kernels have learnt to round in another way since: one step of the output."""
    x = np.random.default_rng(0).normal(size=(7, 4, 4, 4)).astype(np.float32) * 20
    options = {"kernels": kernels}
    found = old.infer(int8_convolution, [x], options)[0]
    assert found.shape == (7, 4, 4, 8)
    distance = np.abs(found - host.infer(int8_convolution, [x], options)[0]) / 0.5
    assert distance.max() <= steps
    assert len(np.unique(found)) > 10, "an output that says something"


@pytest.mark.slow
def test_tflite_runtime_is_timed_with_its_cold_start_and_peak_memory(
    old: AgentDevice, int8_convolution: Artifact
) -> None:
    short = {"protocol": {"seconds": 0.1, "runs": 20, "warmup_s": 0.02, "window_s": 0.02}}
    (samples,) = old.benchmark([int8_convolution], short, quick=True)
    assert samples.conditions["runtime"] == "tflite-runtime 2.14.0"
    assert sum(map(len, samples.windows_ms)) >= 20
    assert samples.cold_ms is not None
    assert samples.peak_memory_bytes is not None, samples.memory_reason


@pytest.mark.slow
def test_a_real_model_that_crashes_tflite_runtime_is_an_error(
    old: AgentDevice, endless_file: Path
) -> None:
    with pytest.raises(ToolError, match=r"crashed \(signal 11, SIGSEGV\) on old board"):
        old.probe(endless_file, "litert", {})


@pytest.fixture
def int8_convolution(
    tflite_file: Callable[..., Path], make_artifact: Callable[..., Artifact]
) -> Artifact:
    """CONV_2D and RELU in int8, from 1x4x4x4 to 1x4x4x8."""
    facts = {"input_layout": "NHWC"}
    return make_artifact(
        tflite_file(), "tflite", "litert", precision="int8", inputs=(), facts=facts
    )
