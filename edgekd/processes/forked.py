"""Modules of edgekd run as processes of their own, without waiting for their imports each time.

The first job of a module starts a server (`fork_server`) that imports what the module needs and
forks for each job, so that a job still has a process to itself, ended with whatever it started.
`prepare` starts the server ahead of time. Where there is no server, the module is started as a
program.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.errors import ToolError
from edgekd.processes import Finished, run_tool

READ_AT_START = ("LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PYTHONPATH", "TVM_NUM_THREADS")
"""Environment variables that the interpreter or a library reads once, as it is loaded."""


class _Lost(Exception):
    """The server ended before it had started the job."""


class _Server:
    """One module's server."""

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        self.settings = _settings(environment)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgekd.processes.fork_server", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # two answers may come at once, and only one of them is read at a time
            env=dict(environment),
            start_new_session=True,
        )

    def run(self, job: dict[str, Any], limit_s: float) -> int:
        """The exit status of a job. Raises `TimeoutError`, or `_Lost`."""
        assert self.process.stdin is not None
        until = time.monotonic() + limit_s
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
        except OSError:
            raise _Lost from None
        child = self._answer(until).get("child")
        if child is None:
            raise _Lost
        try:
            status = self._answer(until).get("status")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        return -int(signal.SIGKILL) if status is None else status

    def _answer(self, until: float) -> dict[str, int]:
        """The next answer; none if the server has ended."""
        assert self.process.stdout is not None
        left = max(0.0, until - time.monotonic())
        if not select.select([self.process.stdout], [], [], left)[0]:
            raise TimeoutError
        line = self.process.stdout.readline()
        values: dict[str, int] = json.loads(line) if line.endswith(b"\n") else {}
        return values

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


_servers: dict[str, tuple[int, _Server]] = {}
"""By module: the process that started the server, and the server."""


def prepare(module: str, environment: Mapping[str, str] | None = None) -> None:
    """Start to import what a module needs, in the background, where this is possible."""
    if hasattr(os, "pidfd_open"):
        _server(module, os.environ if environment is None else environment)


def run_module(
    module: str,
    arguments: Sequence[str],
    limit_s: float,
    tool: str,
    where: str,
    *,
    hint: str = "",
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run `main(*arguments)` of a module to its end in a process; `tool` is its name in errors.

    The module has a tuple `PRELOADED` of the modules that it needs. Raises `ToolError` if it does
    not end within `limit_s` seconds. Whatever processes it started end with it in every case.
    """
    everything = dict(os.environ if environment is None else environment)
    with tempfile.TemporaryDirectory(prefix="edgekd-forked-") as name:
        output, errors = Path(name) / "stdout", Path(name) / "stderr"
        output.touch()
        errors.touch()
        job = {
            "arguments": list(arguments),
            "environment": everything,
            "folder": str(Path.cwd()),
            "stdout": str(output),
            "stderr": str(errors),
        }
        try:
            status = _status(module, job, limit_s)
        except TimeoutError:
            message = f"{tool} did not end within {limit_s:g} s"
            raise ToolError(message, where=where, hint=hint) from None
        except _Lost:
            argv = [sys.executable, "-m", module, *arguments]
            return run_tool(argv, limit_s, tool, where, hint=hint, environment=everything)
        return Finished(output.read_bytes(), errors.read_bytes(), status)


def _status(module: str, job: dict[str, Any], limit_s: float) -> int:
    if not hasattr(os, "pidfd_open"):
        raise _Lost
    server = _server(module, job["environment"])
    try:
        return server.run(job, limit_s)
    except BaseException:
        _servers.pop(module, None)
        server.end()
        raise


def _server(module: str, environment: Mapping[str, str]) -> _Server:
    """The server of a module: one that this process started, with the same settings."""
    owner, server = _servers.get(module, (0, None))
    mine = server is not None and owner == os.getpid()
    if server is not None and mine:
        if server.process.poll() is None and server.settings == _settings(environment):
            return server
        server.end()
    server = _Server(module, environment)
    _servers[module] = os.getpid(), server
    return server


def _settings(environment: Mapping[str, str]) -> list[str | None]:
    return [str(Path.cwd()), *(environment.get(name) for name in READ_AT_START)]


@atexit.register
def _end_servers() -> None:
    for owner, server in _servers.values():
        if owner == os.getpid():
            server.end()
