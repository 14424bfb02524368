"""The boards that were created: each a folder with `board.json` and the saved machine."""

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

FIRST_SECONDS = 60.0
"""How long a board may take for its first answer before it is asked again."""


@dataclass(frozen=True)
class Board:
    """One created board. `key` is its content's hash, `packages` its runtimes' versions."""

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
        """How it is started."""
        return Machine(self.processor, state=self.folder / "state")

    @property
    def bytes(self) -> int:
        """What it takes on the disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


def created_folder() -> Path:
    """Where created boards lie."""
    return boards_folder() / "created"


def create_board(name: str) -> tuple[Board, bool]:
    """The board of that target, and whether it had to be made: one of the same content is kept.

    Raises:
        InputError: a target that can't be emulated, a missing tool or package.
        ToolError: a package can't be had, or the board does not start.
    """
    _check_name(name)
    raise_all(missing_programs(TOOLS, WHERE))
    recipe = recipe_of(name)
    key = recipe.key
    with alone(created_folder()):
        found = {board.name: board for board in list_boards()}.get(name)
        if found is not None and found.key == key:
            return found, False
        if found is not None:
            stop_board(found)
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
    """Every created board by name; a folder without a readable record is no board."""
    found = []
    for record in sorted(created_folder().glob("[!.]*/board.json")):
        with contextlib.suppress(ValueError, TypeError, OSError):
            found.append(Board(folder=record.parent, **json.loads(record.read_text())))
    return found


def find_board(name: str) -> Board:
    """The created board of that name. Raises `InputError` with the command that creates it."""
    boards = {board.name: board for board in list_boards()}
    if name not in boards:
        hint = f"edgekd board create {name}"
        try:
            hardware_of(name)
        except InputError:  # nor can it be
            hint = nearest(name, boards) or hint
        raise InputError(
            f"no board '{name}' has been created",
            where=f"emulated://{name}",
            allowed=", ".join(boards),
            hint=hint,
        )
    return boards[name]


def check_emulator(board: Board) -> None:
    """Refuse a board that was saved by another version of the emulator, or without its tool."""
    emulators = {tool: package for tool, package in TOOLS.items() if "qemu" in tool}
    raise_all(missing_programs(emulators, WHERE))
    here = emulator_version()
    if here != board.emulator:
        raise InputError(
            f"made with QEMU {board.emulator}, and {here} is here",
            where=f"emulated://{board.name}",
            hint=f"edgekd board create {board.name}",
        )


def is_outdated(board: Board) -> bool:
    """Whether creating it again would make another one."""
    try:
        return recipe_of(board.name).key != board.key
    except (InputError, ToolError):
        return False


def remove_board(name: str) -> Board:
    """Stop it and delete its folder; what it shares with other boards stays."""
    board = find_board(name)
    with alone(created_folder()):
        stop_board(board)
        shutil.rmtree(board.folder)
    return board


def start_board(board: Board) -> tuple[Running, bool]:
    """Have it run until `stop_board`, paused while nobody uses it, and whether it had to be
    started. Files that were sent to it stay there."""
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
    """End it; False if it was not running."""
    running = running_board(board)
    if running is not None:
        running.stop()
    (board.folder / "running.json").unlink(missing_ok=True)
    return running is not None


def running_board(board: Board) -> Running | None:
    """The machine that `start_board` started, if it still runs."""
    try:
        table = json.loads((board.folder / "running.json").read_text())
        running = Running(int(table["pid"]), Path(table["folder"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return running if running.alive() else None


@contextlib.contextmanager
def machine_for(board: Board) -> Iterator[Running]:
    """The board for one session: the one that runs, for this session alone, or a fresh one. When
    the client is killed the first is paused and the second ends. Raises `ToolError` if it is in
    use."""
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
        try:
            lock = stack.enter_context(locked(running.folder / "lock"))
        except BlockingIOError:
            raise ToolError(
                "another process is measuring on this board",
                where=f"emulated://{board.name}",
                hint=f"wait, or run 'edgekd board stop {board.name}': then each session starts a "
                "board of its own",
            ) from None
        with Monitor(running.monitor_path) as monitor:
            guard = Guard(running.folder, running.pid, "pause", [lock])
            monitor.ask("cont")
            try:
                yield running
            finally:
                with contextlib.suppress(ToolError):
                    monitor.ask("stop")
                guard.let_go()


def control_link(board: Board, running: Running, limit_s: float) -> tuple[Link, str]:
    """The board's first port, and the folder there for files. A machine of this session's own ends
    when the port is let go; on a kept one, what a killed session left is removed."""
    name = f"emulated://{board.name}"
    try:
        link, files = _introduced(Link(running.port_path(0), name, min(FIRST_SECONDS, limit_s)))
    except ToolError:  # the rest of a killed session may have swallowed the question
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
    """The same link and the board's folder for files, once it has answered this very question."""
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
    """A board as JSON has it."""
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
        raise InputError(f"'{name}' is no board's name", where="board", allowed="a target's name")
