"""The created boards: each a folder with `board.json` and the saved machine."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekd.devices.emulated.folders import WHERE, alone, boards_folder
from edgekd.devices.emulated.guard import Guard
from edgekd.devices.emulated.image import build, recipe_of
from edgekd.devices.emulated.link import Link
from edgekd.devices.emulated.machine import TOOLS, Machine, Running, emulator_version, start
from edgekd.devices.emulated.monitor import Monitor
from edgekd.devices.emulated.processors import hardware_of
from edgekd.errors import InputError, ToolError, nearest, raise_all
from edgekd.installed import missing_programs
from edgekd.store import folder_beside, locked, write_beside

BUSY_SECONDS = 600.0
"""How long a session waits for a running board that another is using."""

FIRST_SECONDS = 60.0
"""How long to wait for a board's first reply before asking again."""


@dataclass(frozen=True)
class Board:
    """One created board. `key` is the hash of its content, `packages` the versions of its
    runtimes."""

    name: str
    folder: Path
    key: str
    processor: str
    emulator: str
    kernel: str
    packages: dict[str, str]
    created: str

    @property
    def machine(self) -> Machine:
        """How to start it."""
        return Machine(self.processor, state=self.folder / "state")

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


def created_folder() -> Path:
    """The folder of the created boards."""
    return boards_folder() / "created"


def create_board(name: str) -> tuple[Board, bool]:
    """The board of that target, and whether it had to be made: an existing board with the same
    content is reused.

    Raises:
        InputError: the target can't be emulated, or a tool or package is missing.
        ToolError: a package can't be downloaded, or the board does not start.
    """
    _check_name(name)
    raise_all(missing_programs(TOOLS, WHERE))
    recipe = recipe_of(name)
    key = recipe.key
    with alone(created_folder()):
        existing = {board.name: board for board in list_boards()}.get(name)
        if existing is not None and existing.key == key:
            return existing, False
        if existing is not None:
            stop_board(existing)
        folder = created_folder() / name
        with folder_beside(folder) as beside:
            kernel = build(recipe, name, beside)
            record = {
                "name": name, "key": key, "processor": recipe.processor,
                "emulator": recipe.emulator, "kernel": kernel, "packages": recipe.packages,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }  # fmt: skip
            (beside / "board.json").write_text(json.dumps(record, indent=1) + "\n")
    return find_board(name), True


def list_boards() -> list[Board]:
    """All created boards, by name; folders without a readable record are skipped."""
    boards = []
    for record in sorted(created_folder().glob("[!.]*/board.json")):
        with contextlib.suppress(ValueError, TypeError, OSError):
            boards.append(Board(folder=record.parent, **json.loads(record.read_text())))
    return boards


def find_board(name: str) -> Board:
    """The created board of that name. Raises `InputError` with the command that creates it."""
    boards = {board.name: board for board in list_boards()}
    if name not in boards:
        hint = f"edgekd board create {name}"
        try:
            hardware_of(name)
        except InputError:  # and it can't be created
            hint = nearest(name, boards) or hint
        raise InputError(
            f"no board '{name}' has been created",
            where=f"emulated://{name}",
            allowed=", ".join(boards),
            hint=hint,
        )
    return boards[name]


def check_emulator(board: Board) -> None:
    """Refuse a board that was saved by another version of the emulator, or if the emulator is
    missing."""
    emulators = {tool: package for tool, package in TOOLS.items() if "qemu" in tool}
    raise_all(missing_programs(emulators, WHERE))
    here = emulator_version()
    if here != board.emulator:
        raise InputError(
            f"created with QEMU {board.emulator}, but {here} is installed",
            where=f"emulated://{board.name}",
            hint=f"edgekd board create {board.name}",
        )


def is_outdated(board: Board) -> bool:
    """Whether creating it again would result in a different board."""
    try:
        return recipe_of(board.name).key != board.key
    except (InputError, ToolError):
        return False


def remove_board(name: str) -> Board:
    """Stop it and delete its folder; files shared with other boards stay."""
    board = find_board(name)
    with alone(created_folder()):
        stop_board(board)
        shutil.rmtree(board.folder)
    return board


def start_board(board: Board) -> tuple[Running, bool]:
    """Start a board that runs until `stop_board` and is paused while unused. Returns the running
    machine and whether it had to be started. Files sent to it are kept."""
    check_emulator(board)
    with alone(created_folder()):
        found = running_board(board)
        if found is not None:
            return found, False
        running = start(board.machine)
        table = {"pid": running.pid, "folder": str(running.folder)}
        write_beside(board.folder / "running.json", json.dumps(table) + "\n")
        running.keep()
    return running, True


def stop_board(board: Board) -> bool:
    """Stop it; False if it was not running."""
    running = running_board(board)
    if running is not None:
        running.stop()
    (board.folder / "running.json").unlink(missing_ok=True)
    return running is not None


def running_board(board: Board) -> Running | None:
    """The machine that `start_board` started, if it is still running."""
    try:
        table = json.loads((board.folder / "running.json").read_text())
        running = Running(int(table["pid"]), Path(table["folder"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return running if running.alive() else None


@contextlib.contextmanager
def machine_for(board: Board) -> Iterator[Running]:
    """The board for one session: the running one, reserved for this session, or a fresh one.

    If the client is killed, the former is paused and the latter ends. A session waits while another
    has the running one. Raises `ToolError` if that takes longer than `BUSY_SECONDS`.
    """
    running = running_board(board)
    if running is None:
        check_emulator(board)
        running = start(board.machine)
        try:
            with Monitor(running.monitor_path) as monitor:
                monitor.ask("cont")
            yield running
        finally:
            running.stop()
        return
    with contextlib.ExitStack() as stack:
        lock = _reserved(stack, running.folder / "lock", board)
        with Monitor(running.monitor_path) as monitor:
            guard = Guard(running.folder, running.pid, "pause", [lock])
            monitor.ask("cont")
            try:
                yield running
            finally:
                with contextlib.suppress(ToolError):
                    monitor.ask("stop")
                guard.let_go()


def _reserved(stack: contextlib.ExitStack, lock: Path, board: Board) -> int:
    """The lock of a running board, once no other session holds it."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return stack.enter_context(locked(lock))
        except BlockingIOError:
            if time.monotonic() >= end:
                raise ToolError(
                    f"another process has been using this board for {BUSY_SECONDS / 60:.0f} "
                    "minutes",
                    where=f"emulated://{board.name}",
                    hint=f"wait, or run 'edgekd board stop {board.name}': then each session starts "
                    "a board of its own",
                ) from None
            time.sleep(0.2)


def control_link(board: Board, running: Running, limit_s: float) -> tuple[Link, str]:
    """The board's first port, and its folder for files. A machine started for this session ends
    when the port is closed; on a running board, leftovers of a killed session are removed."""
    name = f"emulated://{board.name}"
    try:
        link, files = _introduced(Link(running.port_path(0), name, min(FIRST_SECONDS, limit_s)))
    except ToolError:  # the remains of a killed session may have consumed the request
        time.sleep(0.2)
        link, files = _introduced(Link(running.port_path(0), name, limit_s))
    link.limit_s = limit_s
    try:
        link.ask("fresh" if running_board(board) == running else "once")
    except BaseException:
        link.close()
        raise
    return link, files


def _introduced(link: Link) -> tuple[Link, str]:
    """The same link and the board's folder for files, once it has replied to this very request."""
    try:
        nonce = os.urandom(8).hex()
        answer: dict[str, Any] = {}
        while answer.get("nonce") != nonce:
            answer = link.ask("hello", nonce=nonce)
    except BaseException:
        link.close()
        raise
    return link, str(answer.get("files"))


def as_table(board: Board) -> dict[str, Any]:
    """A board as JSON data."""
    running = running_board(board)
    return {
        **{key: value for key, value in asdict(board).items() if key != "folder"},
        "folder": str(board.folder),
        "bytes": board.bytes,
        "running": running is not None,
        "outdated": is_outdated(board),
    }


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name:
        raise InputError(
            f"'{name}' is not a board's name", where="board", allowed="a target's name"
        )
