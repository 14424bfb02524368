"""A device measures for one process at a time."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.devices.lease import leased
from edgekd.errors import ToolError

HOLD = """
import sys, time
from pathlib import Path
from edgekd.devices.lease import leased
with leased("ssh://pi@board", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(tmp_path: Path):
    processes = []

    def hold(seconds: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(tmp_path), str(seconds)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()


def test_a_busy_device_is_waited_for(holder, tmp_path):
    process = holder(0.5)
    started = time.monotonic()
    with leased("ssh://pi@board", tmp_path):
        assert time.monotonic() - started > 0.2
    assert process.wait() == 0


def test_a_device_that_stays_busy_is_one_clear_error(holder, tmp_path):
    holder(60)
    with pytest.raises(ToolError, match="another process has been measuring there") as caught:  # noqa: SIM117
        with leased("ssh://pi@board", tmp_path, longest=0.3):
            pass
    assert caught.value.where == "device ssh://pi@board"


def test_another_device_is_free_and_a_killed_process_holds_nothing(holder, tmp_path):
    process = holder(60)
    with leased("host", tmp_path, longest=0.0):
        pass
    process.kill()
    process.wait()
    with leased("ssh://pi@board", tmp_path, longest=0.5):
        pass
