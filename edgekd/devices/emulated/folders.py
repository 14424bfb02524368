"""Where boards are stored, and running the system tools that make them."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekd.processes import run_tool
from edgekd.store import cache_folder, disk_errors, locked, make_folder

BUILD_SECONDS = 1800.0
WHERE = "emulated board"


def boards_folder() -> Path:
    """`boards` in edgekd's cache."""
    return cache_folder() / "boards"


def run_system_tool(command: Sequence[str]) -> str:
    """Run a tool to its end and return its log. Raises `ToolError` with its last line if it fails,
    or after the time limit."""
    tool = Path(command[0]).name
    return run_tool(command, BUILD_SECONDS, tool, tool).require_success(tool, tool).log


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process make boards at a time: the others wait and then find them made. Half-made
    leftovers of a killed process are removed."""
    with contextlib.ExitStack() as stack:
        with disk_errors(folder):
            make_folder(folder)
            stack.enter_context(locked(folder / ".lock", wait=True))
        for half in folder.glob(".*.writing"):
            shutil.rmtree(half, ignore_errors=True)
        yield
