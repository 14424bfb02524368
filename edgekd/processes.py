"""Vendors' tools as processes: with a time limit, and ended together with whatever they started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.errors import ToolError


def run_tool(
    argv: Sequence[str], folder: Path, limit_s: float, tool: str, where: str, hint: str = ""
) -> tuple[str, int]:
    """What a tool printed (both streams, in order) and its exit status; it runs in `folder`.

    A negative status is a signal's number. Raises `ToolError` if the tool can't be started or does
    not end within `limit_s` seconds; its children end with it in every case.
    """
    with (folder / f"{tool}.output").open("w+b") as output:
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"{tool} could not be started: {error}", where=argv[0]) from None
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ToolError(
                f"{tool} did not end within {limit_s:g} s", where=where, hint=hint
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read().decode("utf-8", errors="replace"), code


def told_by(module: str, model: Path, limit_s: float, tool: str, *more: str) -> dict[str, Any]:
    """The JSON in the last line that `python -m MODULE MODEL MORE` prints, in its own process.

    Raises `ToolError` with `tool`'s last words where it fails, crashes or does not end in time.
    """
    argv = [sys.executable, "-m", module, str(model.resolve()), *more]
    with tempfile.TemporaryDirectory(prefix=f"edgekd-{tool}-") as folder:
        log, code = run_tool(argv, Path(folder), limit_s, tool, str(model))
    lines = log.strip().splitlines() or ["it said nothing"]
    if code or not lines[-1].startswith("{"):
        raise ToolError(f"{tool} failed ({how_it_ended(code)}): {lines[-1]}", where=str(model))
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def how_it_ended(code: int) -> str:
    """An exit status in words: a signal by its name."""
    if code >= 0:
        return f"exit status {code}"
    names = {int(one): one.name for one in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"
