"""The transport to an emulated board: virtio-serial ports, one for files and one per agent."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from edgekd.devices.companions import plain_name, shipment
from edgekd.devices.emulated.catalog import Board, control_link, machine_for
from edgekd.devices.emulated.link import Link
from edgekd.devices.emulated.machine import PORTS, Running
from edgekd.devices.transport import LONGEST_LINE, Channel, ending
from edgekd.errors import ToolError


class PortChannel:
    """An agent on one of the board's ports."""

    def __init__(self, transport: "BoardTransport", number: int, link: Link) -> None:
        self.number = number
        self._transport = transport
        self._link = link
        self._ending: tuple[int | None, str] | None = None

    def send(self, line: bytes) -> None:
        try:
            self._link.send(line + b"\n", 60.0)
        except TimeoutError:
            raise EOFError from None

    def receive(self, limit_s: float) -> bytes:
        line = self._link.line(limit_s, LONGEST_LINE)
        if not line.startswith(b"\0"):
            return line
        self._ending = _ending_of(line[1:])
        raise EOFError

    def ended(self) -> str:
        code = self._ending[0] if self._ending else None
        return "was lost: the board has shut down" if code is None else ending(code)

    def errors(self) -> str:
        return self._ending[1] if self._ending else self._transport.last_words()

    def close(self) -> None:
        self._link.close()
        self._transport.give_back(self.number)


class BoardTransport:
    """A created board, started or found running when it is first needed."""

    def __init__(self, board: Board, agent: Path, limit_s: float) -> None:
        self.board = board
        self._agent = agent
        self._limit_s = limit_s
        self._stack = contextlib.ExitStack()
        self._running: Running | None = None
        self._control: Link | None = None
        self._busy: set[int] = set()
        self._scratch: set[str] = set()
        self._there: set[str] = set()
        self._files = ""
        self._count = 0

    def put(self, file: Path) -> str:
        sent = shipment(file)
        for path, name, _ in sent.files:
            self._send(f"{sent.folder}/{name}", path)
        return f"{self._files}/{sent.folder}/{sent.name}"

    def lend(self, file: Path) -> str:
        self._count += 1
        there = self.scratch(f"lent-{self._count}/{plain_name(file.name)}")
        self.write(there, file.read_bytes())
        return there

    def scratch(self, name: str) -> str:
        self._link()
        there = f"{self._files}/session-{os.getpid()}/{name}"
        self._scratch.add(there)
        return there

    def write(self, there: str, content: bytes) -> None:
        link = self._link()
        name = there.removeprefix(f"{self._files}/")
        link.ask("put", content, name=name, size=len(content))

    def read(self, there: str, limit: int) -> bytes:
        return self._link().get(there, limit)

    def take(self, there: str, limit: int) -> bytes:
        content = self.read(there, limit)
        self._link().ask("remove", paths=[there])
        self._scratch.discard(there)
        return content

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        # The board's clock counts instructions; this process has to wait longer.
        done = self._link().ask("execute", command=list(command), limit_s=limit_s)
        return int(done["code"]), str(done["stdout"]), str(done["stderr"])

    def open_channel(self, pin: int) -> Channel:
        control = self._link()
        agent = self.put(self._agent)
        free = next((n for n in range(1, PORTS) if n not in self._busy), None)
        if free is None or self._running is None:
            raise ToolError("no free port for another agent", where=control.name)
        link = Link(self._running.port_path(free), control.name, self._limit_s)
        try:
            link.ask("agent", arguments=[agent, "--pin", str(pin)])
        except BaseException:
            link.close()
            raise
        self._busy.add(free)
        return PortChannel(self, free, link)

    def close(self) -> None:
        if self._control is not None:
            with contextlib.suppress(ToolError):
                self._control.ask("remove", paths=sorted(self._scratch))
            self._control.close()
        self._stack.close()
        self._running, self._control = None, None
        self._busy.clear()
        self._scratch.clear()
        self._there.clear()

    def give_back(self, number: int) -> None:
        """End the agent on a port, and wait until the port is free."""
        self._busy.discard(number)
        if self._control is not None:
            with contextlib.suppress(ToolError):  # the board itself has shut down
                self._control.ask("end", port=number)

    def last_words(self) -> str:
        """The end of the board's console output."""
        return self._running.console if self._running is not None else ""

    def _send(self, name: str, path: Path) -> None:
        link = self._link()
        if name in self._there or link.ask("put", name=name).get("there") is True:
            self._there.add(name)
            return
        link.ask("put", path.read_bytes(), name=name, size=path.stat().st_size)
        self._there.add(name)

    def _link(self) -> Link:
        if self._control is None:
            try:
                self._running = self._stack.enter_context(machine_for(self.board))
                self._control, self._files = control_link(self.board, self._running, self._limit_s)
            except BaseException:
                self._stack.close()
                raise
        return self._control


def _ending_of(ending: bytes) -> tuple[int | None, str]:
    try:
        table = json.loads(ending)
        return int(table["code"]), str(table["errors"])[-4000:]
    except (ValueError, KeyError, TypeError):
        return None, ""
