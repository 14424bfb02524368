"""Other programs as processes: with a time limit, and ended together with whatever they started."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import ToolError

_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b.*:")


@dataclass(frozen=True)
class Finished:
    """What a process that has ended wrote to its two streams, and its exit status, which is the
    negative number of the signal that killed it."""

    stdout: bytes
    stderr: bytes
    status: int

    @property
    def log(self) -> str:
        """Standard output, then standard error."""
        return (self.stdout + self.stderr).decode("utf-8", errors="replace")

    @property
    def lines(self) -> list[str]:
        """The lines of the log that are not blank, without the space around them."""
        return [line.strip() for line in self.log.splitlines() if line.strip()]

    @property
    def last_line(self) -> str:
        """The last of `lines`, which is where most programs say why they failed."""
        return self.lines[-1] if self.lines else "no output"

    @property
    def cause(self) -> str:
        """Why it failed: the last line that names an exception, as a traceback does, or else the
        last line. An exception's message may go on below its own line."""
        named = [line for line in self.lines if _EXCEPTION.match(line)]
        return named[-1] if named else self.last_line

    def require_success(self, tool: str, where: str) -> "Finished":
        """Raise `ToolError` with the cause, and the whole log as its detail, unless the status is
        0."""
        if self.status:
            how = how_it_ended(self.status)
            message = f"{tool} failed ({how}): {self.cause}"
            raise ToolError(message, where=where, detail=self.log)
        return self


def run_tool(
    argv: Sequence[str],
    limit_s: float,
    tool: str,
    where: str,
    *,
    hint: str = "",
    folder: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end, in `folder` if one is given; `tool` is its name in errors.

    Raises `ToolError` if it can't be started or does not end within `limit_s` seconds. Whatever
    processes it started end with it in every case.
    """
    with contextlib.ExitStack() as stack:
        source, output, errors = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        source.write(stdin)
        source.seek(0)
        try:
            process = subprocess.Popen(
                argv,
                stdin=source,
                stdout=output,
                stderr=errors,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"{tool} could not be started: {error}", where=argv[0]) from None
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            message = f"{tool} did not end within {limit_s:g} s"
            raise ToolError(message, where=where, hint=hint) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        errors.seek(0)
        return Finished(output.read(), errors.read(), status)


def run_json_module(
    module: str, model: Path, limit_s: float, tool: str, *arguments: str
) -> dict[str, Any]:
    """Run `python -m MODULE MODEL ARGUMENTS` and read the JSON object in its last line of output.

    For work that a damaged model can crash. Raises `ToolError` if it fails, or as `run_tool`.
    """
    argv = [sys.executable, "-m", module, str(model.resolve()), *arguments]
    with tempfile.TemporaryDirectory(prefix=f"edgekd-{tool}-") as folder:
        done = run_tool(argv, limit_s, tool, str(model), folder=Path(folder))
    lines = done.stdout.decode("utf-8", errors="replace").strip().splitlines()
    if done.status or not lines or not lines[-1].startswith("{"):
        how = how_it_ended(done.status)
        raise ToolError(f"{tool} failed ({how}): {done.last_line}", where=str(model))
    table: dict[str, Any] = json.loads(lines[-1])
    return table


def how_it_ended(status: int) -> str:
    """An exit status in words, a signal by its name."""
    if status >= 0:
        return f"exit status {status}"
    names = {int(known): known.name for known in signal.Signals}
    return f"killed by {names.get(-status, f'signal {-status}')}"
