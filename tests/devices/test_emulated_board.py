"""A created board as a device: with a fake emulator, and the real one where it is installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices.emulated.catalog import create_board, find_board, start_board, stop_board
from edgekd.devices.emulated.folders import WHERE
from edgekd.devices.emulated.machine import TOOLS
from edgekd.devices.opening import open_device
from edgekd.devices.session import AgentDevice
from edgekd.errors import ToolError
from edgekd.installed import missing_programs
from edgekd.measure.meters.latency import latency_measurements
from edgekd.values.artifact import Artifact

URL = "emulated://raspberry-pi-5"


@pytest.fixture
def board(fake_emulator: Path) -> Iterator[AgentDevice]:
    create_board("raspberry-pi-5")
    device = open_device(URL, limit_s=60.0)
    assert isinstance(device, AgentDevice)
    yield device
    device.close()


def test_a_board_gives_outputs_and_simulated_times_of_one_thread(
    board: AgentDevice, host: AgentDevice, artifact: Artifact, inputs: np.ndarray
) -> None:
    np.testing.assert_array_equal(
        board.infer(artifact, [inputs], {})[0], host.infer(artifact, [inputs], {})[0]
    )
    (samples,) = board.benchmark([artifact], {"threads": 4}, quick=True)
    assert len(samples.windows_ms) == 3, "counts of instructions need no minute"
    assert samples.conditions["threads"] == "1 (the profile says 4; one core is emulated)"
    assert samples.conditions["emulator"].startswith("QEMU 7.2.22 -cpu cortex-a76 -icount")
    rows = latency_measurements(samples, board.name, board.kind)
    assert rows[0].kind == "simulated"
    assert rows[0].value is not None


def test_files_go_there_and_come_back_and_commands_run(board: AgentDevice, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(256)) * 5000)
    there = board.send(source)
    board.fetch(there, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()
    assert board.execute(["wc", "-c", there], 20.0)[1].startswith("1280000")
    assert board.execute(["sh", "-c", "echo no >&2; exit 4"], 20.0) == (4, "", "no\n")
    assert board.execute(["no-such-program"], 20.0)[0] == 127
    assert board.execute(["sleep", "30"], 0.2)[0] == 124


def test_a_runtime_that_crashes_there_names_the_file_and_the_board_goes_on(
    board: AgentDevice, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text("import sys, os\ninput()\nsys.stderr.write('bad kernel')\nos.abort()\n")
    broken = open_device(URL, agent=agent, limit_s=60.0)
    try:
        for _ in range(2):
            with pytest.raises(ToolError, match=r"crashed \(signal 6, SIGABRT\)") as caught:
                broken.can_run(artifact)
            assert caught.value.hint == "its last output: bad kernel"
    finally:
        broken.close()


def test_a_board_that_goes_away_in_the_middle_is_a_tools_error(
    board: AgentDevice, artifact: Artifact
) -> None:
    board.can_run(artifact)
    board._transport._running.stop()  # type: ignore[attr-defined]
    with pytest.raises(ToolError, match=r"has shut down|was lost"):
        board.probe(artifact.path, "onnxruntime", {})


def test_a_kept_board_keeps_files_from_session_to_session(
    board: AgentDevice, artifact: Artifact, inputs: np.ndarray
) -> None:
    created = find_board("raspberry-pi-5")
    start_board(created)
    try:
        results = []
        for _ in range(2):
            device = open_device(URL, limit_s=60.0)
            results.append(device.infer(artifact, [inputs], {})[0])  # type: ignore[attr-defined]
            device.close()
        np.testing.assert_array_equal(*results)
    finally:
        stop_board(created)


@pytest.mark.emulator
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_board_repeats_its_times_to_a_part_in_a_thousand(
    host: AgentDevice, tflite: Artifact
) -> None:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: {missing_programs(TOOLS, WHERE)[0].hint}")
    create_board("raspberry-pi-5")
    medians = []
    for _ in range(2):
        board = open_device(URL)
        assert board.can_run(tflite) == ""
        (samples,) = board.benchmark([tflite], {}, quick=True)
        medians.append(latency_measurements(samples, board.name, board.kind)[0].value)
        x = np.random.default_rng(0).normal(size=(4, 3, 2, 4)).astype(np.float32)
        np.testing.assert_array_equal(
            board.infer(tflite, [x], {})[0], host.infer(tflite, [x], {})[0]
        )
        board.close()
    assert medians[0] == pytest.approx(medians[1], rel=1e-3)
