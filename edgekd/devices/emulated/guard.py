"""A small process beside an emulated machine, in case its user is killed: it then ends the machine
and removes its folder, or pauses a machine that is kept.

Its user writes to its stdin. A word before the end of stdin means that the machine was released;
nothing means that the user died. It runs by its path, with the standard library only.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Then = Literal["end", "pause"]

NOTICED_S = 0.5
"""Pause before a kept machine is stopped, so that its side notices that the user is gone."""

QUIT_S = 5.0


class Guard:
    """The user's side. `held` are open files (a lock) that the guard keeps open as long as it
    lives."""

    def __init__(self, folder: Path, pid: int, then: Then, held: Sequence[int] = ()) -> None:
        from edgekd.package import package_folder  # not at the top: this file also runs alone

        itself = package_folder() / "devices" / "emulated" / "guard.py"
        command = [sys.executable, "-I", "-S", str(itself), str(folder), str(pid), then]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, pass_fds=tuple(held),
        )  # fmt: skip

    def let_go(self) -> None:
        """Release the machine: its user has taken care of it."""
        with contextlib.suppress(ValueError):  # it was already released
            self._process.communicate(b"done")


def stands_for(pid: int, folder: Path) -> bool:
    """Whether the process exists and is that folder's machine, not a later process with the same
    id."""
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _accepted(folder: Path, command: str) -> bool:
    """Whether the machine's monitor accepted a command."""
    lines = [{"execute": "qmp_capabilities"}, {"execute": command}]
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as one:
        one.settimeout(QUIT_S)
        one.connect(str(folder / "q"))
        one.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        with one.makefile("rb") as answers:
            done = 0
            for line in answers:
                done += "return" in json.loads(line)
                if done == len(lines):
                    return True
    return False


def _pause(folder: Path, pid: int) -> None:
    time.sleep(NOTICED_S)
    while stands_for(pid, folder) and not _accepted(folder, "stop"):
        time.sleep(0.2)


def _end(folder: Path, pid: int) -> None:
    _accepted(folder, "quit")
    deadline = time.monotonic() + QUIT_S
    while stands_for(pid, folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    if stands_for(pid, folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def main(folder: str, pid: str, then: str) -> None:
    """Wait for the user's end, and take care of the machine if nobody did."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # the signal that ends its user must not end the guard
    if not sys.stdin.buffer.read():
        (_pause if then == "pause" else _end)(Path(folder), int(pid))


if __name__ == "__main__":
    main(*sys.argv[1:])
