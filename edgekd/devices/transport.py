"""How files and lines get to where the agent runs: this machine, or a board."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgekd.errors import ToolError
from edgekd.package import package_folder
from edgekd.store import disk_errors

LONGEST_LINE = 256 << 20
"""Bytes. A minute of samples takes at most 6 MB per file; no agent sends longer lines."""

AGENT = package_folder() / "devices" / "agent.py"
"""The file that runs where the models do; with --watch it watches another process."""


class Disconnected(ToolError):
    """The connection to a device is lost; actions that leave no trace there may be retried."""


class Lines:
    """Splits incoming blocks of bytes into whole lines."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._length = 0

    def add(self, block: bytes) -> None:
        """Add a block. Raises `ToolError` for a line that is too long to be a reply."""
        self._blocks.append(block)
        self._length += len(block)
        if self._length > LONGEST_LINE and b"\n" not in block:
            raise ToolError(f"the agent sent a line of more than {LONGEST_LINE} bytes")

    def next(self) -> bytes | None:
        """The next whole line without its end, or None if there is none yet."""
        if not self._blocks or b"\n" not in self._blocks[-1]:
            return None
        line, _, rest = b"".join(self._blocks).partition(b"\n")
        self._blocks, self._length = ([rest] if rest else []), len(rest)
        return line


class Channel(Protocol):
    """One running agent: lines in, lines out."""

    def send(self, line: bytes) -> None:
        """Send one line. Raises `EOFError` if the other side has ended."""

    def receive(self, limit_s: float) -> bytes:
        """The next line. Raises `EOFError` at the end, `TimeoutError` after `limit_s` seconds."""

    def ended(self) -> str:
        """Why the other side has ended: "crashed (signal 11)", "ended (exit code 1)"."""

    def errors(self) -> str:
        """The end of its stderr."""

    def close(self) -> None:
        """End the agent and wait until it is gone."""


class Transport(Protocol):
    """A place where agents run. Paths there are strings, because they need not be valid paths
    here."""

    def put(self, file: Path) -> str:
        """Copy a file there unless its content is already there; returns its path. Files that it
        needs beside it (an ONNX file's external data) keep their names."""

    def lend(self, file: Path) -> str:
        """Copy a file to a folder there in which more may be written; returns its path."""

    def scratch(self, name: str) -> str:
        """A path there for a temporary file that is removed with the session."""

    def write(self, there: str, content: bytes) -> None:
        """Write a whole file at a scratch path."""

    def read(self, there: str, limit: int) -> bytes:
        """The content of a file there. Raises `ToolError` if it has more than `limit` bytes."""

    def take(self, there: str, limit: int) -> bytes:
        """Like `read`, for a scratch file, which is then removed."""

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        """Run a command there: its exit status, stdout and stderr.

        The status is 127 if there is no such command, and 124 if it was ended at the limit.
        """

    def open_channel(self, pin: int) -> Channel:
        """Start an agent, pinned to `pin` processors unless that is zero."""

    def close(self) -> None:
        """Remove what was stored there for this session only."""


def ending(code: int) -> str:
    """How a process ended; a negative status is the signal that killed it."""
    if code < 0:
        return f"crashed (signal {-code}, {signal.Signals(-code).name})"
    return f"ended (exit code {code})"


def status_of(code: int) -> int:
    """The exit status of what a watcher ran: negative for the signal that killed it."""
    return 128 - code if 128 < code < 160 else code


class ProcessChannel:
    """An agent's watcher as a child process, in a process group of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise ToolError(f"could not be started: {error}", where=command[0]) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._lines = Lines()

    def send(self, line: bytes) -> None:
        try:
            self._stdin.write(line + b"\n")
            self._stdin.flush()
        except (BrokenPipeError, ValueError):
            raise EOFError from None

    def receive(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while (line := self._lines.next()) is None:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError
                block = os.read(self._stdout.fileno(), 1 << 20)
                if not block:
                    raise EOFError
                self._lines.add(block)
            return line

    def ended(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return ending(status_of(code))

    def errors(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(self._stderr.tell() - 4000, 0))
        return self._stderr.read().decode(errors="replace").strip()

    def close(self) -> None:
        self._process.terminate()  # this ends the watcher, which ends the agent
        self._process.wait()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # data that was still to be sent
            self._stdin.close()
        self._stderr.close()


class LocalTransport:
    """This machine. `interpreter` runs the agent, in `environment` or in this process's
    environment."""

    def __init__(
        self, interpreter: Sequence[str], agent: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._interpreter = list(interpreter)
        self._agent = agent
        self._environment = dict(os.environ if environment is None else environment)
        self._folder = tempfile.TemporaryDirectory(prefix="edgekd-")

    def put(self, file: Path) -> str:
        return str(file.resolve())

    def lend(self, file: Path) -> str:
        return str(file.resolve())

    def scratch(self, name: str) -> str:
        return str(Path(self._folder.name) / name)

    def write(self, there: str, content: bytes) -> None:
        with disk_errors(Path(there).parent):
            Path(there).write_bytes(content)

    def read(self, there: str, limit: int) -> bytes:
        try:
            with Path(there).open("rb") as stream:
                content = stream.read(limit + 1)
        except OSError as error:
            raise ToolError(f"not readable: {error.strerror}", where=there) from None
        if len(content) > limit:
            raise ToolError(f"more than {limit} bytes", where=there)
        return content

    def take(self, there: str, limit: int) -> bytes:
        content = self.read(there, limit)
        Path(there).unlink(missing_ok=True)
        return content

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, errors="replace", env=self._environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return 127, "", f"{command[0]}: {error.strerror}"
        with process:
            try:
                out, err = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                return 124, "", f"{command[0]}: did not end within {limit_s:g} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, out, err

    def open_channel(self, pin: int) -> Channel:
        return self._open("--pin", str(pin))

    def _open(self, *arguments: str) -> Channel:
        """An agent behind its watcher, which ends it and removes the session's folder if this
        process is killed."""
        watcher = [sys.executable, "-I", "-u", str(AGENT), "--watch", "inf", "--fed"]
        watcher += ["--scratch", self._folder.name, "--"]
        command = [*watcher, *self._interpreter, str(self._agent), *arguments]
        return ProcessChannel(command, self._environment)

    def close(self) -> None:
        self._folder.cleanup()
