"""A processor under user-mode emulation: the real instructions' outputs, and no times."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices.emulated.root import create_root, missing_tools
from edgekd.devices.emulated.user_mode import open_user_mode
from edgekd.devices.session import AgentDevice
from edgekd.measure.meters.latency import latency_measurements
from edgekd.values.artifact import Artifact


def test_missing_tools_of_user_mode_emulation_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    hints = [fault.hint for fault in missing_tools()]
    assert hints == ["apt install qemu-user-static", "apt install mmdebstrap"]


def test_a_board_that_could_not_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing_tools():
        pytest.skip("no emulator")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    monkeypatch.setattr("edgekd.devices.emulated.root.run_system_tool", fail_half_way)
    with pytest.raises(RuntimeError, match="half way"):
        create_root("raspberry-pi-5")
    assert [path.name for path in (tmp_path / "boards").iterdir()] == [".lock"]


def fail_half_way(command: list[str]) -> None:
    (Path(command[-1]) / "usr").mkdir(parents=True)
    raise RuntimeError("half way")


@pytest.mark.emulator
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_user_mode_gives_the_hosts_outputs_and_no_times(
    host: AgentDevice, artifact: Artifact, inputs: np.ndarray, tflite: Artifact
) -> None:
    if missing_tools():
        pytest.skip("no emulator")
    board = open_user_mode("raspberry-pi-5")
    assert board.hello().machine == "aarch64"
    expected = host.infer(artifact, [inputs], {})[0]
    np.testing.assert_allclose(board.infer(artifact, [inputs], {})[0], expected, atol=1e-5)
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(board.infer(tflite, [x], {})[0], host.infer(tflite, [x], {})[0])
    (samples,) = board.benchmark([artifact], {}, quick=True)
    assert "edgekd board create raspberry-pi-5" in samples.invalid
    rows = latency_measurements(samples, board.name, board.kind)
    assert {row.kind for row in rows} == {"unavailable"}
    assert {row.value for row in rows} == {None}
    board.close()
