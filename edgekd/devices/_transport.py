"""How files and lines get to where the agent runs: this machine here, a board elsewhere."""

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgekd.errors import ToolError

LONGEST_LINE = 256 << 20
"""Bytes. A minute of runs of 10 us is 50 MB of samples; what is longer is no agent."""


class Channel(Protocol):
    """One running agent: lines in, lines out."""

    def send(self, line: bytes) -> None:
        """Hand over one line. Raises `EOFError` when the other side has ended."""

    def receive(self, limit_s: float) -> bytes:
        """The next line. Raises `EOFError` at the end, `TimeoutError` after `limit_s` seconds."""

    def ended(self) -> str:
        """Why the other side has ended, in words: "crashed (signal 11)", "ended (exit code 1)"."""

    def errors(self) -> str:
        """The last of what it wrote on stderr."""

    def close(self) -> None:
        """End the agent and wait until it is gone."""


class Transport(Protocol):
    """A place where agents run. Paths there are strings: they need not be paths here."""

    def put(self, file: Path) -> str:
        """The path there of a file with this content, copied only if it isn't there yet."""

    def scratch(self, name: str) -> str:
        """A path there that may be written and is removed with the place."""

    def fetch(self, there: str) -> Path:
        """A local file with the content of one there."""

    def execute(self, command: Sequence[str], limit_s: float) -> str:
        """The stdout of a command there. Raises `ToolError` if it fails or takes too long."""

    def open_channel(self, pin: int) -> Channel:
        """Start an agent, kept to `pin` processors if that is not zero."""

    def close(self) -> None:
        """Remove what was put there for this session only."""


class ProcessChannel:
    """An agent as a child process of this one, in a process group of its own."""

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
            raise ToolError(f"does not start: {error}", where=command[0]) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._blocks: list[bytes] = []

    def send(self, line: bytes) -> None:
        try:
            self._stdin.write(line + b"\n")
            self._stdin.flush()
        except (BrokenPipeError, ValueError):
            raise EOFError from None

    def receive(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        length = sum(map(len, self._blocks))
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while True:
                if self._blocks and b"\n" in self._blocks[-1]:
                    line, _, rest = b"".join(self._blocks).partition(b"\n")
                    self._blocks = [rest] if rest else []
                    return line
                if length > LONGEST_LINE:
                    raise ToolError(f"the agent sent a line of more than {LONGEST_LINE} bytes")
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError
                block = os.read(self._stdout.fileno(), 1 << 20)
                if not block:
                    raise EOFError
                self._blocks.append(block)
                length += len(block)

    def ended(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code < 0:
            return f"crashed (signal {-code}, {signal.Signals(-code).name})"
        return f"ended (exit code {code})"

    def errors(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(self._stderr.tell() - 4000, 0))
        return self._stderr.read().decode(errors="replace").strip()

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what was still to be sent
            self._stdin.close()
        self._stderr.close()


class LocalTransport:
    """This machine. `interpreter` runs the agent, in `environment` or else in this process's."""

    def __init__(
        self, interpreter: Sequence[str], agent: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._interpreter = list(interpreter)
        self._agent = agent
        self._environment = dict(os.environ if environment is None else environment)
        self._folder = tempfile.TemporaryDirectory(prefix="edgekd-")

    def put(self, file: Path) -> str:
        return str(file.resolve())

    def scratch(self, name: str) -> str:
        return str(Path(self._folder.name) / name)

    def fetch(self, there: str) -> Path:
        return Path(there)

    def execute(self, command: Sequence[str], limit_s: float) -> str:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit_s, env=self._environment
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"took more than {limit_s:g} s", where=command[0]) from None
        except OSError as error:
            raise ToolError(f"does not start: {error}", where=command[0]) from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ToolError(f"exit code {done.returncode}: {last}", where=command[0])
        return done.stdout

    def open_channel(self, pin: int) -> Channel:
        command = [*self._interpreter, str(self._agent), "--pin", str(pin)]
        return ProcessChannel(command, self._environment)

    def close(self) -> None:
        self._folder.cleanup()
