"""`edgekd compress`, `bench` and `doctor` with --device ssh://...: a real server, real runtimes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_target import SMALL_TARGET
from ssh_server import Server, free_port

from edgekd.backends import Board
from edgekd.devices import ssh
from edgekd.devices.opening import missing_runtimes, open_device
from edgekd.devices.transport import AGENT
from edgekd.errors import MissingRuntime

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, widths = [8, 16, 16] }

[data]
source = "digits"

[calibration]
samples = 16

[[stages]]
kind = "distill"
epochs = 1

[[stages]]
kind = "quantize"
method = "qat"
epochs = 1

[budgets]
latency_ms = 1000.0
size_kb = 500
"""

TARGET = SMALL_TARGET + '[sensors]\nenergy = "rapl"\n'

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compress(edgekd: Run, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Compresses for a target of this machine's kind; exit code, report, stderr."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "small.toml").write_text(TARGET)

    def run(device: str, *more: str) -> tuple[int, dict[str, Any], str]:
        names = [str(tmp_path / name) for name in ("recipe.toml", "small.toml", "out")]
        code, _, err = edgekd(
            "compress", names[0], "--target", names[1], "--out", names[2], "--quick",
            "--device", device, *more,
        )  # fmt: skip
        report = tmp_path / "out" / "report.json"
        return code, json.loads(report.read_text()) if report.exists() else {}, err

    return run


@pytest.mark.slow
def test_compress_proves_its_files_on_the_board_with_the_hosts_accuracy(
    board: Server, compress: Callable[..., tuple[int, dict[str, Any], str]]
) -> None:
    code, report, err = compress(board.url)
    assert code == 0, err
    (target,) = report["targets"]
    (artifact,) = target["artifacts"]
    assert target["device"] == "ssh://board"
    assert artifact["parity"]["verdict"] == "pass"
    rows = {row["metric"]: row for row in artifact["measurements"]}
    for metric in ("accuracy", "latency_ms_p90", "cold_start_ms", "peak_memory_bytes"):
        assert rows[metric]["kind"] == "measured", rows[metric]
        assert rows[metric]["device"] == "ssh://board"
    assert rows["energy_mj"]["value"] is None
    assert rows["energy_mj"]["reason"]
    (judged,) = [each for each in artifact["budgets"] if each["metric"].startswith("latency")]
    assert judged["verdict"] == "pass"
    host = compress("host")[1]["targets"][0]["artifacts"][0]
    assert host["sha256"] == artifact["sha256"]
    assert host["accuracy"] == artifact["accuracy"]
    assert host["parity"] == artifact["parity"]


@pytest.mark.slow
def test_a_board_that_computes_something_else_fails_parity_by_name(
    board: Server, compress: Callable[..., tuple[int, dict[str, Any], str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A board whose runtime is off: every second class is 10 % too large."""
    wrong = tmp_path / "agent.py"
    right = "return y.astype(np.float32, copy=False)"  # what every ONNX file's outputs pass
    text = AGENT.read_text()
    assert text.count(right) == 1
    distorted = "y = y * np.where(np.arange(y.shape[-1]) % 2, 1.1, 1.0)\n    "
    wrong.write_text(text.replace(right, distorted + right))
    monkeypatch.setattr(ssh.open_ssh, "__kwdefaults__", {"agent": wrong})
    code, report, err = compress(board.url)
    assert code == 1, err
    (artifact,) = report["targets"][0]["artifacts"]
    assert artifact["parity"]["verdict"] == "fail"
    assert artifact["parity"]["max_lsb"] > 2
    assert artifact["parity"]["first_difference"].startswith("only on ssh://board: its onnxruntime")


@pytest.mark.slow
def test_a_board_of_another_kind_is_refused_before_any_training(
    board: Server, compress: Callable[..., tuple[int, dict[str, Any], str]], tmp_path: Path
) -> None:
    another = TARGET.replace("x86_64", "aarch64").replace("weight_bits = 7", "")
    (tmp_path / "arm.toml").write_text(another.replace('"small"', '"arm"').replace("rapl", "none"))
    code, _, err = compress(board.url, "--target", str(tmp_path / "arm.toml"))
    assert code == 2
    assert "error: --device: ssh://board is x86_64, but arm is aarch64" in err
    assert not (tmp_path / "out" / "stages").exists()


def test_an_unreachable_board_stops_the_plan(board: Server, edgekd: Run, tmp_path: Path) -> None:
    board.configure(port=free_port())
    arguments = ("--target", "x86", "--out", str(tmp_path / "out"), "--device", board.url)
    code, _, err = edgekd("compress", *arguments)
    assert code == 3
    assert "error: ssh://board: connection refused" in err
    assert not (tmp_path / "out" / "stages").exists()


def test_a_board_without_any_runtime_stops_the_plan(
    board: Server, compress: Callable[..., tuple[int, dict[str, Any], str]], bare_python: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    code, _, err = compress(board.url_with(bare_python))
    assert code == 3, err
    assert "error: --device: ssh://board has no onnxruntime: no small file runs there" in err
    assert "hint: pip install onnxruntime" in err
    assert not (tmp_path / "out" / "stages").exists()


def test_missing_runtimes_are_reported_beside_present_ones() -> None:
    there = {"onnxruntime": "onnxruntime 1.31", "tvm": "", "litert": ""}
    hello = SimpleNamespace(runtimes=there, install={"tvm": "pip install apache-tvm"})
    device: Any = SimpleNamespace(name="ssh://board", hello=lambda: hello)
    target: Any = SimpleNamespace(name="pc", backends={"onnx": {}, "tvm": {}, "c": {}})
    assert missing_runtimes(device, target) == [
        "ssh://board has no tvm: 'tvm' files will not run (pip install apache-tvm)"
    ]
    target.backends = {"c": {}}
    assert missing_runtimes(device, target) == []
    target.backends = {"tvm": {}, "tflite": {}}
    with pytest.raises(MissingRuntime, match="has no tvm and no litert: no pc file") as caught:
        missing_runtimes(device, target)
    assert caught.value.hint == "pip install apache-tvm; or no package is known"


def test_doctor_tells_what_a_board_has(board: Server, edgekd: Run) -> None:
    code, out, _ = edgekd("doctor", "--device", board.url, "--json")
    assert code == 0
    found = {row["name"]: row for row in json.loads(out)}
    assert found["architecture"]["found"] == "x86_64"
    assert found["onnxruntime"]["found"].startswith("onnxruntime ")
    assert found["tensorrt"]["found"] or "JetPack" in found["tensorrt"]["hint"]
    assert found["free space"]["found"].endswith(" GB")
    assert found["RAPL"]["found"] or found["RAPL"]["hint"]
    assert {"memory", "python", "numpy", "instructions", "governor"} <= set(found)


def test_a_board_is_measured_from_the_command_line(
    board: Server, edgekd: Run, onnx_file: Path
) -> None:
    code, out, err = edgekd("bench", str(onnx_file), "--device", board.url, "--quick", "--json")
    assert code == 0, err
    (result,) = json.loads(out)
    assert result["path"] == str(onnx_file)
    assert result["device"] == "ssh://board"


def test_an_engine_is_built_on_the_board(board: Server, onnx_file: Path, tmp_path: Path) -> None:
    """A stand-in for trtexec on the board's side, by the interface that the backend uses."""
    tool = tmp_path / "trtexec"
    tool.write_text('#!/bin/sh\ncp "${1#--onnx=}" "${2#--saveEngine=}" && echo built\n')
    tool.chmod(0o755)
    device = open_device(board.url, limit_s=60.0)
    on_board = Board(device.execute, device.send, device.fetch)
    there = on_board.send(onnx_file)
    engine = there.rpartition("/")[0] + "/.model.engine.partial"
    code, out, _ = on_board.execute([str(tool), f"--onnx={there}", f"--saveEngine={engine}"], 60.0)
    assert (code, out) == (0, "built\n")
    on_board.fetch(engine, tmp_path / "model.engine")
    assert (tmp_path / "model.engine").read_bytes() == onnx_file.read_bytes()
    device.close()
    assert not Path(there).exists()
