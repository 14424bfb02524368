"""A run that is broken off, by a kill or a full disk, goes on and ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_target import SMALL_TARGET

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, widths = [8, 16, 16] }

[data]
source = "few.npz"

[calibration]
samples = 16

[[stages]]
kind = "distill"
epochs = 3
batch_size = 32

[[stages]]
kind = "prune"
amount = 0.5
epochs = 3
batch_size = 32

[[stages]]
kind = "quantize"
method = "qat"
epochs = 3
batch_size = 32
"""

COMMAND = ("compress", "r.toml", "--target", "small.toml", "--quick", "--out")


@pytest.fixture
def place(tmp_path):
    random = np.random.default_rng(0)
    y = np.arange(200) % 10
    x = random.random((200, 1, 8, 8), dtype=np.float32) + y[:, None, None, None] / 10
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "small.toml").write_text(SMALL_TARGET)
    return tmp_path


def start(place: Path, out: str, cache: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "EDGEKD_CACHE": str(place / (cache or f"cache-{out}")),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "edgekd", *COMMAND, out],
        cwd=place,
        env=environment,
        # Ctrl-C counts also where the tests run in the background, which ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(place: Path, out: str) -> dict:
    process = start(place, out)
    told, errors = process.communicate(timeout=240)
    assert process.returncode in (0, 1), told + errors
    return json.loads((place / out / "report.json").read_text())


def there(folder: Path, pattern: str) -> bool:
    """Whether a file of that pattern is there; folders may vanish while they are looked through."""
    try:
        return bool(list(folder.glob(pattern)))
    except FileNotFoundError:
        return False


def kill_when(place: Path, out: str, pattern: str) -> None:
    """SIGKILL as soon as a file of that pattern is in the output folder."""
    process = start(place, out)
    try:
        while not there(place / out, pattern):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def hashes(report: dict) -> list[str]:
    return [artifact["sha256"] for artifact in report["targets"][0]["artifacts"]]


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(place):
    unbroken = finish(place, "unbroken")
    for pattern in (
        "stages/unfinished/distill-*/epoch.safetensors",
        "stages/distill-*/report.json",
        "stages/unfinished/prune-*/**/epoch.safetensors",
        "stages/unfinished/quantize-*/**/epoch.safetensors",
        "stages/unfinished/compile-*.writing/*",
        "artifacts/small/model.onnx",
    ):
        kill_when(place, "broken", pattern)
    broken = finish(place, "broken")
    assert hashes(broken) == hashes(unbroken)
    assert [stage["accuracy"] for stage in broken["stages"]] == [
        stage["accuracy"] for stage in unbroken["stages"]
    ]
    assert list((place / "broken" / "stages" / "unfinished").iterdir()) == []


@pytest.mark.slow
def test_a_second_run_reuses_every_stage_and_gives_the_same_report(place):
    first, second = finish(place, "out"), finish(place, "out")
    assert [stage["cached"] for stage in first["stages"]] == [False, False, False]
    assert [stage["cached"] for stage in second["stages"]] == [True, True, True]
    assert second["targets"] == first["targets"]


@pytest.mark.slow
def test_ctrl_c_ends_in_one_error_and_leaves_nothing_half_written(place):
    process = start(place, "out")
    while not list((place / "out").glob("stages/unfinished/distill-*/epoch.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted; finished steps are kept" in errors
    assert "Traceback" not in errors
    assert not (place / "out" / "report.json").exists()
    assert not list((place / "out").rglob("*.writing"))


@pytest.fixture
def small_disk(place):
    """A disk of a given size in kB, mounted where a run writes everything; it can grow."""
    disk = place / "disk"
    disk.mkdir()

    def size(kilobytes: int) -> Path:
        again = "remount," if os.path.ismount(disk) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={kilobytes}k", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        return disk

    yield size
    if os.path.ismount(disk):
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_error_and_with_more_space_the_run_goes_on(place, small_disk):
    unbroken = finish(place, "unbroken")
    failures, kilobytes = 0, 16
    while True:
        disk = small_disk(kilobytes)
        process = start(place, "disk/out", cache="disk/cache")
        _, errors = process.communicate(timeout=240)
        if process.returncode in (0, 1):
            break
        failures += 1
        assert process.returncode == 3, errors
        assert errors.count("error:") == 1
        assert "the disk is full; finished work is kept" in errors
        assert "Traceback" not in errors
        assert not (disk / "out" / "report.json").exists()
        kilobytes *= 2
    assert failures > 2
    assert hashes(json.loads((disk / "out/report.json").read_text())) == hashes(unbroken)
    assert not list(disk.rglob("*.writing"))
