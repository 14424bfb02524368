"""Where boards lie, and what makes them: one process at a time, with tools of the system."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgekd.errors import EdgekdError, InputError, ToolError
from edgekd.store import cache_folder, disk_errors, locked

BUILD_SECONDS = 1800.0


def boards_folder() -> Path:
    """`boards` in edgekd's cache."""
    return cache_folder() / "boards"


def missing(tools: Mapping[str, str]) -> list[EdgekdError]:
    """A fault for each program that is not here; the values are Debian's packages."""
    return [
        InputError(f"no {tool} here", where="emulated board", hint=f"apt install {package}")
        for tool, package in tools.items()
        if shutil.which(tool) is None
    ]


def run_tool(command: Sequence[str]) -> str:
    """Run a tool to its end and return what it said. Raises `ToolError` with its last line, or
    after the time limit."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=BUILD_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, 9)
            if isinstance(error, subprocess.TimeoutExpired):
                message = f"took more than {BUILD_SECONDS:g} s"
                raise ToolError(message, where=command[0]) from None
            raise
    if process.returncode:
        lines = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
        raise ToolError(f"exit code {process.returncode}: {lines[-1]}", where=command[0])
    return said


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process make boards at a time: the others wait, and then find them made. What a
    killed process left half-made is removed."""
    with contextlib.ExitStack() as stack:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock", wait=True))
        for half in folder.glob(".*.writing"):
            shutil.rmtree(half, ignore_errors=True)
        yield
