"""An external power meter: any command that prints lines with a time and watts.

The interface is one reading per line on the command's stdout, `SECONDS WATTS`, separated by blanks
or a comma. SECONDS is Unix time; `-` means the time at which the line arrives. Lines that start
with `#` are ignored. Two well-known formats are supported directly by `--meter-format`:

- `nvidia-smi`: `nvidia-smi --query-gpu=timestamp,power.draw --format=csv,noheader,nounits -lms 100`
- `tegrastats`: `tegrastats --interval 100`, the sum of the rails named by `tegrastats:VDD_IN`, or
  of all rails; its own clock has whole seconds only, so the time of arrival is used.

To use a meter with software of its own, write a few lines that print this format. The command runs
as given, without a shell, and is ended with the measurement.
"""

import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from math import isfinite
from types import TracebackType
from typing import Self

import numpy as np

from edgekd.devices import Device
from edgekd.errors import InputError, ToolError
from edgekd.measure.meters.energy import Trace

Reading = tuple[float | None, float]
"""Unix time, or None for the time of arrival, and watts."""

FIRST_SECONDS = 10.0
"""The longest wait for a meter's first line."""

LAST_SECONDS = 3.0
"""The longest wait for a line after the last window."""


def read_watts(line: str) -> Reading | None:
    """Parse `SECONDS WATTS`; None for a comment. Raises `ValueError` for anything else."""
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    seconds, watts = line.replace(",", " ").split()
    return (None if seconds == "-" else float(seconds)), float(watts)


def read_nvidia_smi(line: str) -> Reading | None:
    """Parse `2026/11/21 06:26:33.123, 45.12`, in local time and watts; None for a header."""
    if not line.strip() or line.startswith("timestamp"):
        return None
    stamp, _, watts = line.partition(",")
    moment = datetime.strptime(stamp.strip(), "%Y/%m/%d %H:%M:%S.%f")
    return moment.timestamp(), float(watts.strip().removesuffix("W"))


def tegrastats_reader(rails: str) -> Callable[[str], Reading | None]:
    """A parser of `... VDD_IN 4912mW/4890mW ...`: each rail's current power, which precedes its
    average."""
    wanted = [rail for rail in rails.split("+") if rail]

    def read(line: str) -> Reading | None:
        found = {name: float(now) for name, now in re.findall(r"(\w+) (\d+)mW/\d+mW", line)}
        missing = [rail for rail in wanted if rail not in found]
        if not found or missing:
            raise ValueError(f"no rail {', '.join(missing)}" if missing else "no rail")
        return None, sum(found[rail] for rail in wanted or found) / 1000

    return read


def reader_of(name: str) -> Callable[[str], Reading | None]:
    """The parser for a format name. Raises `InputError` for an unknown one."""
    kind, _, detail = name.partition(":")
    if kind == "tegrastats":
        return tegrastats_reader(detail)
    readers = {"watts": read_watts, "nvidia-smi": read_nvidia_smi}
    if name not in readers:
        allowed = "watts, nvidia-smi, tegrastats, tegrastats:RAIL+RAIL"
        raise InputError(f"unknown format '{name}'", where="--meter-format", allowed=allowed)
    return readers[name]


def words_of(command: str) -> list[str]:
    """A program and its arguments. Raises `InputError` if the text is not a command."""
    allowed = "a program and its arguments"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"{error}: {command}", where="--meter", allowed=allowed) from None
    if not words:
        raise InputError("no command", where="--meter", allowed=allowed)
    return words


class MeterRecorder:
    """Records a meter's command inside a `with` block, on the clock of a device's windows."""

    def __init__(self, command: str, read: Callable[[str], Reading | None], device: Device) -> None:
        self._command = words_of(command)
        self._read = read
        self._device = device
        self._points: list[tuple[float, float]] = []
        self._failed = ""
        self._first = threading.Event()
        self._stack = ExitStack()
        self._offset = 0.0
        self._unix = time.time() - time.monotonic()

    def __enter__(self) -> Self:
        self._offset = self._device_offset()
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ToolError(f"could not be started: {error}", where="--meter") from None
        self._thread = threading.Thread(target=self._listen, name="meter", daemon=True)
        self._thread.start()
        try:
            if not self._first.wait(FIRST_SECONDS) or self._failed:
                why = self._failed or f"printed nothing for {FIRST_SECONDS:g} s"
                raise ToolError(why, where=f"--meter {self._command[0]}")
        except BaseException:  # on Ctrl-C too: the meter is in its own process group
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._read_once_more()
        finally:
            self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._thread.join()

    def now(self) -> float:
        """The clock of the trace: the device's."""
        return time.monotonic() + self._offset

    def trace(self) -> Trace | str:
        """The recording, or why it is not usable."""
        if self._failed:
            return f"the meter {self._failed}"
        if len(self._points) < 2:
            return "the meter printed fewer than two readings"
        points = sorted(self._points)
        seconds, watts = np.array(points).T
        steps = np.diff(seconds) * (watts[1:] + watts[:-1]) / 2
        joules = np.concatenate([[0.0], np.cumsum(steps)])
        return Trace(seconds + self._offset, joules, f"external meter {self._command[0]}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                arrived = time.monotonic()
                if not line.endswith("\n"):
                    continue  # the last line, cut off when the meter was ended
                try:
                    reading = self._read(line)
                    if reading is not None and not all(isfinite(one or 0.0) for one in reading):
                        raise ValueError("not a number")
                except ValueError:
                    self._failed = f"printed an unknown line: {line.strip()[:80]!r}"
                    break
                if reading is not None:
                    unix, watts = reading
                    self._points.append((arrived if unix is None else unix - self._unix, watts))
                    self._first.set()
            else:
                self._failed = "" if self._first.is_set() else "ended without a reading"
        self._first.set()

    def _read_once_more(self) -> None:
        """Wait for a reading later than now, the end of the last window."""
        ended = time.monotonic()
        while self._points[-1][0] < ended and time.monotonic() < ended + LAST_SECONDS:
            if not self._thread.is_alive():
                return  # no more readings will come
            time.sleep(0.01)

    def _device_offset(self) -> float:
        """How far the device's clock is ahead of this machine's, in seconds."""
        if self._device.name == "host":
            return 0.0
        with self._device.record([], 1.0) as recording:
            return recording.now() - time.monotonic()


def check_meter(command: str | None, name: str) -> None:
    """Refuse an invalid command or format, and a format without a command."""
    reader_of(name)
    if command is not None:
        words_of(command)
    elif name != "watts":
        raise InputError(
            f"there is no meter for the format '{name}'", where="--meter-format", hint="add --meter"
        )


def open_meter(command: str, name: str, device: Device) -> MeterRecorder:
    """The recorder of a meter's command whose output has the named format. Raises `InputError` for
    an invalid command or format."""
    return MeterRecorder(command, reader_of(name), device)
