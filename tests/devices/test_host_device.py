"""The host device with real runtimes, and with agents and runtimes that fail."""

import ctypes.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from waiting import until

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.options import parse_shape
from edgekd.devices import agent
from edgekd.devices.host import open_host
from edgekd.devices.opening import open_device
from edgekd.devices.session import AgentDevice
from edgekd.devices.transport import AGENT
from edgekd.errors import InputError, MissingRuntime, ToolError
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.target import load_target

SHORT = {"protocol": {"seconds": 0.1, "runs": 20, "warmup_s": 0.02, "window_s": 0.02}}


def test_outputs_are_those_of_pytorch_and_keep_their_number(
    host: AgentDevice, artifact: Artifact, inputs: np.ndarray, weights: np.ndarray
) -> None:
    found = host.infer(artifact, [inputs], {})[0]
    expected = torch.conv2d(torch.from_numpy(inputs), torch.from_numpy(weights), padding=1)
    assert found.shape == (5, 4, 8, 8)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_a_benchmark_interleaves_its_models_and_says_how_it_was_taken(
    host: AgentDevice, artifact: Artifact
) -> None:
    first, second = host.benchmark([artifact, artifact], {"threads": 1, **SHORT}, quick=True)
    assert first.quick
    assert not first.invalid
    assert len(first.windows_ms) == len(second.windows_ms) >= 5
    assert sum(map(len, first.windows_ms)) >= 20
    starts = [[span[0] for span in samples.spans_s] for samples in (first, second)]
    interleaved = [start for pair in zip(*starts, strict=True) for start in pair]
    assert interleaved == sorted(interleaved)
    assert first.cold_ms is not None
    assert first.cold_ms > np.median(first.windows_ms[0])
    assert first.conditions["threads"] == "1"
    assert "," not in first.conditions["affinity"], "one thread is kept to one processor"
    assert first.conditions["runtime"].startswith("onnxruntime ")


def test_samples_cover_the_time_that_they_were_taken_in(
    host: AgentDevice, artifact: Artifact
) -> None:
    (samples,) = host.benchmark([artifact], {**SHORT, "threads": 2}, quick=True)
    for window, (start, end) in zip(samples.windows_ms, samples.spans_s, strict=True):
        assert 0 < sum(window) <= (end - start) * 1000


def test_end_to_end_takes_longer_than_the_model_alone(host: AgentDevice, tflite: Artifact) -> None:
    """Its floats are quantized on the way in, and its steps are made floats on the way out."""
    (whole,) = host.benchmark([tflite], {**SHORT, "scope": "end-to-end"}, quick=True)
    assert whole.scope == "end-to-end"
    (model,) = host.benchmark([tflite], SHORT, quick=True)
    assert model.scope == "model"
    assert min(map(min, whole.windows_ms)) > min(map(min, model.windows_ms))


def test_one_call_from_arrays_to_arrays_gives_what_bound_ones_give(
    onnx_file: Path, inputs: np.ndarray
) -> None:
    model = agent.load({"runtime": "onnxruntime", "path": str(onnx_file), "options": {}})
    model.feed([inputs[:2]])
    model.run()
    (bound,) = model.fetch()
    (whole,) = model.whole([inputs[2:4]])
    assert not np.array_equal(bound, whole)
    np.testing.assert_array_equal(model.whole([inputs[:2]])[0], bound)


def test_peak_memory_grows_with_the_weights(
    host: AgentDevice, make_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    peaks = []
    for size in (16, 2048):
        file = make_artifact(matrix_product(tmp_path / f"{size}.onnx", size), "onnx", "onnxruntime")
        (samples,) = host.benchmark([file], SHORT, quick=True)
        assert samples.peak_memory_bytes is not None, samples.memory_reason
        peaks.append(samples.peak_memory_bytes)
    assert peaks[1] - peaks[0] > 0.8 * 2048 * 2048 * 4


def test_probing_tells_inputs_and_outputs(host: AgentDevice, onnx_file: Path) -> None:
    (x,), (y,) = host.probe(onnx_file, "onnxruntime", {})
    assert (x.name, x.shape, x.dtype) == ("x", (2, 3, 8, 8), "float32")
    assert (y.name, y.shape) == ("y", (2, 4, 8, 8))


def test_inputs_of_another_shape_are_refused(host: AgentDevice, artifact: Artifact) -> None:
    with pytest.raises(
        InputError, match=r"its input 'x' takes shape \[2, 3, 8, 8\], but got \[2, 3, 9"
    ):
        host.infer(artifact, [np.zeros((2, 3, 9, 9), np.float32)], {})


def test_a_corrupt_file_is_named(host: AgentDevice, onnx_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"broken\.onnx: onnxruntime can't load it"):
        host.probe(broken, "onnxruntime", {})


def test_after_a_refused_file_the_device_goes_on(
    host: AgentDevice, artifact: Artifact, inputs: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "empty.tflite").write_bytes(b"")
    with pytest.raises(InputError):
        host.probe(tmp_path / "empty.tflite", "litert", {})
    assert len(host.infer(artifact, [inputs], {})[0]) == 5


def test_an_unknown_provider_is_refused_with_those_that_are_here(
    host: AgentDevice, onnx_file: Path
) -> None:
    with pytest.raises(InputError, match=r"'warp'.*CPUExecutionProvider"):
        host.probe(onnx_file, "onnxruntime", {"provider": "warp"})


def test_a_missing_runtime_is_named_with_the_way_to_install_it(
    host: AgentDevice, onnx_file: Path, artifact: Artifact
) -> None:
    if host.hello().runtimes["tensorrt"]:
        pytest.skip("TensorRT is here")
    with pytest.raises(MissingRuntime, match="no tensorrt") as caught:
        host.probe(onnx_file, "tensorrt", {})
    assert "JetPack" in caught.value.hint
    assert caught.value.exit_code == 3
    there = artifact.model_copy(update={"runtime": "tensorrt"})
    assert host.can_run(there).startswith("host has no tensorrt")


def test_tvm_is_imported_without_the_torch_that_is_installed() -> None:
    lines = """
import sys
from edgekd.devices import agent
with agent.without_torch():
    import tvm
print([name for name in ("tvm", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert done.stdout == "['tvm']\n", done.stderr


def test_a_library_for_another_processor_is_refused_before_it_is_loaded(
    host: AgentDevice, artifact: Artifact, tmp_path: Path
) -> None:
    library = tmp_path / "model.so"
    library.write_bytes(b"\x7fELF".ljust(18, b"\0") + (243).to_bytes(2, "little"))
    other = artifact.model_copy(update={"path": library, "runtime": "tvm"})
    if not host.hello().runtimes["tvm"]:
        pytest.skip("TVM is not here")
    assert host.can_run(other) == ""  # an unknown number is left to the loader
    arm = b"\x7fELF".ljust(18, b"\0") + (40).to_bytes(2, "little")
    library.write_bytes(arm)
    assert host.can_run(other).startswith("it is built for armv7l, but host is")


@pytest.mark.skipif(bool(ctypes.util.find_library("cuda")), reason="there is a CUDA driver here")
def test_a_gpu_library_is_refused_where_there_is_no_driver(
    host: AgentDevice, artifact: Artifact, tmp_path: Path
) -> None:
    if not host.hello().runtimes["tvm"]:
        pytest.skip("TVM is not here")
    placements = (OpPlacement(op="conv2d", name="conv", placement="gpu"),)
    changes = {"runtime": "tvm", "placements": placements}
    on_gpu = artifact.model_copy(update=changes)
    assert host.can_run(on_gpu).endswith("need an NVIDIA GPU, but host has no CUDA driver")


def matrix_product(path: Path, size: int) -> Path:
    """An ONNX file with a weight of that many rows and columns."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    weight = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one_product",
        [helper.make_tensor_value_info("x", kinds.FLOAT, (1, size))],
        [helper.make_tensor_value_info("y", kinds.FLOAT, (1, size))],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def fake_runtime(folder: Path, body: str) -> dict[str, str]:
    """An environment whose `onnxruntime` does that when a model is loaded."""
    package = folder / "onnxruntime"
    package.mkdir()
    lines = [
        "import ctypes, os, signal, sys, time",
        "def get_available_providers():",
        f"    {body}",
    ]
    (package / "__init__.py").write_text("\n".join(lines))
    return {"PYTHONPATH": str(folder)}


def test_a_runtime_that_crashes_is_an_error_that_names_the_file(
    artifact: Artifact, inputs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "os.write(2, b'kernel panic in conv'); os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setenv("PYTHONPATH", fake_runtime(tmp_path, body)["PYTHONPATH"])
    device = open_host(limit_s=20.0)
    with pytest.raises(ToolError, match=r"the runtime crashed \(signal 11, SIGSEGV\)") as caught:
        device.infer(artifact, [inputs], {})
    assert caught.value.where == str(artifact.path)
    assert "kernel panic in conv" in caught.value.hint
    assert caught.value.exit_code == 3
    monkeypatch.delenv("PYTHONPATH")
    device.close()


def test_a_real_model_that_crashes_litert_leaves_the_device_usable(
    host: AgentDevice, endless_file: Path, artifact: Artifact, inputs: np.ndarray,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("ai_edge_litert")
    monkeypatch.chdir(tmp_path)  # where a core dump would lie
    for _ in range(2):
        with pytest.raises(ToolError, match=r"crashed \(signal 11, SIGSEGV\) on host") as caught:
            host.probe(endless_file, "litert", {})
        assert caught.value.where == str(endless_file)
    assert len(host.infer(artifact, [inputs], {})[0]) == len(inputs), "a new agent is started"
    assert list(tmp_path.iterdir()) == []


def test_a_very_fast_models_runs_are_sampled_but_all_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent, "MOST_KEPT", 100)
    model: Any = SimpleNamespace(inputs=[], feed=lambda arrays: None, run=lambda: None)
    here = agent.Agent(lambda message: None, "")
    here.models[0] = model
    protocol = {"warmup_runs": 1, "warmup_s": 0.0, "warmup_window_s": 0.0, "warmup_limit_s": 0.0,
                "settled": 1.0, "windows": 3, "window_s": 0.02, "runs": 1, "seconds": 0.0,
                "limit_s": 0.0}  # fmt: skip
    told = here.benchmark({"models": [0], "protocol": protocol})
    (windows,), (counts,) = told["windows_ns"], told["counts"]
    assert len(windows) == len(counts) == 3
    assert 50 < len(windows[0]) <= 100 < counts[0]
    step = -(-counts[0] // 100)
    assert [len(window) for window in windows] == [-(-count // step) for count in counts]


def test_many_warm_ups_are_no_silence(artifact: Artifact) -> None:
    told: list[float] = []
    protocol = {"warmup_s": 1.0, "warmup_limit_s": 1.0, "window_s": 0.01, "seconds": 0.05}
    device = open_host(limit_s=5.0, progress=told.append)
    samples = device.benchmark([artifact] * 7, {"protocol": protocol}, quick=True)
    device.close()
    assert len(samples) == 7
    assert sum(seconds < 5.0 for seconds in told) > 9
    assert max(told) > 7.0


def test_a_runtime_that_hangs_is_killed(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "pid"
    body = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setenv("PYTHONPATH", fake_runtime(tmp_path, body)["PYTHONPATH"])
    device = open_host(limit_s=5.0)
    with pytest.raises(ToolError, match="no reply to 'memory' within 5 s on host"):
        device.benchmark([artifact], {}, quick=True)
    assert not alive(int(mark.read_text()))
    device.close()


def test_output_of_a_runtime_is_not_taken_for_a_reply(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "print('hello'); os.write(1, b'native noise'); return ['none']"
    monkeypatch.setenv("PYTHONPATH", fake_runtime(tmp_path, body)["PYTHONPATH"])
    device = open_host(limit_s=20.0)
    with pytest.raises(InputError, match="no execution provider 'cpu' here; available: none"):
        device.probe(artifact.path, "onnxruntime", {})
    device.close()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("garbage", "sent an invalid reply: 'garbage'"),
        ("[1, 2]", "sent an invalid reply"),
        ('{"ok": {"cores": "many"}}', "reply is malformed"),
    ],
)
def test_garbage_from_an_agent_is_a_tools_error(tmp_path: Path, said: str, message: str) -> None:
    fake = tmp_path / "agent.py"
    fake.write_text(f"import sys\nfor line in sys.stdin:\n    print({said!r}, flush=True)\n")
    device = open_host(agent=fake, limit_s=20.0)
    with pytest.raises(ToolError, match=message):
        device.hello()
    device.close()


def test_an_agent_that_ends_at_once_is_a_tools_error(tmp_path: Path) -> None:
    fake = tmp_path / "agent.py"
    fake.write_text("raise SystemExit('no such board')")
    device = open_host(agent=fake, limit_s=20.0)
    with pytest.raises(ToolError, match=r"ended \(exit code 1\) on host") as caught:
        device.hello()
    assert "no such board" in caught.value.hint
    device.close()


CLIENT = """
import pathlib, sys
from edgekd.devices.host import open_host
device = open_host()
device.hello()
folder = device._transport._folder.name
open(folder + "/inputs.npy", "w").close()
print(folder, flush=True)
device.probe(pathlib.Path(sys.argv[1]), "onnxruntime", {})
"""


@pytest.mark.parametrize(
    "body",
    ["time.sleep(600)", "ctypes.PyDLL(None).sleep(600)"],
    ids=["its runtime hangs", "its runtime hangs and holds the interpreter's lock"],
)
def test_nothing_is_left_after_the_client_is_killed(
    onnx_file: Path, tmp_path: Path, body: str
) -> None:
    mark = tmp_path / "pid"
    body = f"open({str(mark)!r}, 'w').write(str(os.getpid()) + '.'); {body}"
    environment = {**os.environ, **fake_runtime(tmp_path, body)}
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(onnx_file)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert client.stdout is not None
    folder = Path(client.stdout.readline().strip())
    until(lambda: mark.exists() and mark.read_text().endswith("."), "the agent loads the model")
    agent = int(mark.read_text().rstrip("."))
    assert alive(agent)
    assert folder.exists()
    client.kill()
    client.wait()
    client.stdout.close()
    until(lambda: not alive(agent), "the agent is ended")
    until(lambda: not folder.exists(), "its folder is removed")


def test_closing_ends_the_agent_and_removes_its_files(
    artifact: Artifact, inputs: np.ndarray
) -> None:
    device = open_host()
    device.infer(artifact, [inputs], {})
    pid = device._channel._process.pid  # type: ignore[union-attr]
    folder = Path(device._transport.scratch(""))
    assert alive(pid)
    assert not list(folder.iterdir()), "inputs and outputs are removed as they are read"
    device.close()
    assert not alive(pid)
    assert not folder.exists()


def test_unknown_devices_are_refused_with_those_that_exist() -> None:
    with pytest.raises(InputError, match="unknown kind of device 'hots'") as caught:
        open_device("hots")
    assert {"emulated", "host", "ssh"} <= set(caught.value.allowed.split(", "))
    assert caught.value.hint == "did you mean 'host'?"
    with pytest.raises(InputError, match="takes no location"):
        open_device("host://elsewhere")


def test_the_agent_answers_by_hand_and_ends_with_its_input() -> None:
    lines = '{"command": "hello"}\n\nno json\n{"command": "reboot"}\n'
    command = [sys.executable, str(AGENT)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    hello, noise, unknown = map(json.loads, done.stdout.splitlines())
    assert hello["ok"]["machine"] == os.uname().machine
    assert noise["error"]["kind"] == "failed"
    assert unknown["error"]["message"] == "unknown command 'reboot'"
    assert done.returncode == 0


def test_the_agents_alarm_ends_it_when_nobody_else_does(tmp_path: Path) -> None:
    environment = {**os.environ, **fake_runtime(tmp_path, "time.sleep(600)")}
    model = tmp_path / "model.onnx"
    model.touch()
    request = {"command": "load", "runtime": "onnxruntime", "path": str(model), "limit_s": 1}
    with subprocess.Popen(
        [sys.executable, str(AGENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as agent:
        assert agent.stdin is not None
        agent.stdin.write(json.dumps(request).encode() + b"\n")
        agent.stdin.flush()
        assert agent.wait(timeout=30) == -signal.SIGALRM


def alive(pid: int) -> bool:
    """Whether that process runs; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_inputs_are_made_of_every_shape_and_refused_of_types_that_hold_no_numbers() -> None:
    def made(shape: list[int], dtype: str) -> Any:
        return SimpleNamespace(inputs=[{"name": "x", "shape": shape, "dtype": dtype}], ranges={})

    shapes = [
        agent.random_inputs(made(shape, "float32"), 0)[0].shape for shape in ([], [1], [-1, 3])
    ]
    assert shapes == [(), (1,), (1, 3)]
    assert set(agent.random_inputs(made([100], "bool"), 0)[0].tolist()) == {False, True}
    for dtype in ("bfloat16", "int4", "string", "seq(float)", "bytes_"):
        with pytest.raises(agent.Fault, match="no random values can be made") as caught:
            agent.random_inputs(made([1], dtype), 0)
        assert caught.value.answer["error"]["kind"] == "bad-request"


def test_a_given_shape_that_a_file_can_not_run_with_is_the_users_fault(
    host: AgentDevice, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    ends = [helper.make_tensor_value_info(name, kinds.FLOAT, ("n",)) for name in ("x", "y")]
    weight = onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "add", ends[:1], ends[1:], [weight])
    path = tmp_path / "add.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    wanted = Wanted(shapes=(parse_shape("x=5"),))
    with pytest.raises(InputError, match=r"it does not run with inputs of \[5\]: ") as caught:
        bench_files([path], load_target("x86"), host, quick=True, wanted=wanted)
    assert caught.value.exit_code == 2
