"""A board over ssh as a transport: files stored by their hash, agents as watched commands."""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.companions import plain_name, shipment
from edgekd.devices.replies import printable
from edgekd.devices.ssh import scripts
from edgekd.devices.ssh.connection import STALL_SECONDS, Connection, Process
from edgekd.devices.ssh.faults import Address
from edgekd.devices.transport import Channel, Lines, ending
from edgekd.errors import ToolError

SILENCE_SECONDS = 180
"""After this long without a sign of life from here, the watcher ends what runs there."""

LONGEST_SESSION_SECONDS = 86_400
MOST_OUTPUT = 64 << 20
FULL = ("No space left on device", "Disk quota exceeded", "File too large")


@dataclass(frozen=True)
class Place:
    """What a session found on the board. `limits` says whether `timeout -k` works."""

    python: str
    session: str
    cache: str
    limits: bool
    machine: str


class SshChannel:
    """An agent on the board, and its watcher."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lines = Lines()

    def send(self, line: bytes) -> None:
        self._process.write(line + b"\n")

    def receive(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        while (line := self._lines.next()) is None:
            block = self._process.read(max(deadline - time.monotonic(), 0.001))
            if not block:
                self._process.wait(10.0)  # raises if it was the connection that ended
                raise EOFError
            self._lines.add(block)
        return line

    def ended(self) -> str:
        try:
            return ending(self._process.wait(10.0))
        except TimeoutError:
            return "closed its output"

    def errors(self) -> str:
        return self._process.errors()

    def close(self) -> None:
        self._process.close()


class SshTransport:
    """A board, connected to when first needed, and again after a lost connection."""

    def __init__(self, address: Address, agent: Path) -> None:
        self.address = address
        self._agent = agent
        self._connection: Connection | None = None
        self._keeper: Process | None = None
        self._found: Place | None = None
        self._there: dict[str, str] = {}
        self._count = 0

    def put(self, file: Path) -> str:
        sent = shipment(file)
        folder = f"{self._place().cache}/files/{sent.folder}"
        for path, name, sha256 in reversed(sent.files):
            there = f"{folder}/{name}"
            if self._there.get(there) != sha256:
                self._upload(path.read_bytes(), sha256, there, str(path))
        return f"{folder}/{sent.name}"

    def lend(self, file: Path) -> str:
        self._count += 1
        there = self.scratch(f"lent-{self._count}/{plain_name(file.name)}")
        self.write(there, file.read_bytes())
        return there

    def scratch(self, name: str) -> str:
        return f"{self._place().session}/{name}"

    def write(self, there: str, content: bytes) -> None:
        self._put(content, hashlib.sha256(content).hexdigest(), there, there)

    def read(self, there: str, limit: int) -> bytes:
        return self._get(scripts.GET, there, limit)

    def take(self, there: str, limit: int) -> bytes:
        return self._get(scripts.TAKE, there, limit)

    def _get(self, script: str, there: str, limit: int) -> bytes:
        process = self._open(script, there)
        try:
            process.end_input()
            content = process.read_all(limit)
            if process.wait(STALL_SECONDS):
                raise ToolError(
                    f"not readable: {_said(process)}", where=f"{self.address.url}{there}"
                )
        finally:
            process.close()
        return content

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        process = self._open_watched(limit_s, "--", *command)
        try:
            out = process.read_all(MOST_OUTPUT, limit_s + 15)
            status = process.wait(15.0)
        except TimeoutError:
            return 124, "", f"{command[0]}: did not end within {limit_s:g} s"
        finally:
            process.close()
        text = out.decode(errors="replace")
        return (128 - status if status < 0 else status), text, process.errors()

    def open_channel(self, pin: int) -> Channel:
        return SshChannel(self._open_watched(LONGEST_SESSION_SECONDS, "--pin", str(pin)))

    def close(self) -> None:
        if self._connection is not None:
            if self._keeper is not None and not self._connection.lost:
                self._keeper.close()
            self._connection.close()
        self._connection, self._keeper, self._found = None, None, None
        self._there.clear()

    def _open_watched(self, limit_s: float, *arguments: str) -> Process:
        """The agent's watcher in the session's folder, which ends what it watches at the limit;
        `timeout`, if it works there, is for the case that the watcher itself hangs."""
        place = self._place()
        agent = self.put(self._agent)
        limit = ["timeout", "-k", "10", str(int(limit_s) + 30)] if place.limits else []
        watcher = [*limit, place.python, "-u", agent, "--watch", str(SILENCE_SECONDS)]
        watcher += ["--limit", f"{limit_s:g}"]
        return self._open(scripts.AGENT, place.session, *watcher, *arguments, watched=True)

    def _open(self, script: str, *parameters: str, watched: bool = False) -> Process:
        self._place()
        assert self._connection is not None
        return self._connection.open(script, *parameters, watched=watched)

    def _place(self) -> Place:
        """A connection and a session's folder. Raises `ToolError` if that fails."""
        if self._found is None or self._connection is None or self._connection.lost:
            self.close()
            self._connection = Connection(self.address)
            try:
                self._found = self._introduce(self._connection)
            except BaseException:
                self.close()
                raise
        return self._found

    def _introduce(self, connection: Connection) -> Place:
        address = self.address
        name = secrets.token_hex(8)
        keeper = connection.open(scripts.INTRODUCE, address.python, address.cache, name)
        self._keeper = keeper
        lines, said = Lines(), list[str]()
        try:
            while len(said) < 5:
                block = keeper.read(STALL_SECONDS)
                if not block:
                    raise self._no_place(keeper)
                lines.add(block)
                while (line := lines.next()) is not None:
                    said.append(line.decode(errors="replace"))
        except TimeoutError:
            raise ToolError("its shell does not respond", where=address.url) from None
        python, cache, session, limits, machine = said[:5]
        if not session == f"{cache}/sessions/{name}" or not cache.startswith("/"):
            raise ToolError(
                f"its shell sent an unexpected reply: {printable(session)!r}", where=address.url
            )
        return Place(python, session, cache, bool(limits), printable(machine))

    def _no_place(self, keeper: Process) -> ToolError:
        status, said, url = keeper.wait(10.0), _said(keeper), self.address.url
        if status == scripts.NO_PYTHON:
            wanted = self.address.python or "python3"
            return ToolError(
                f"no Python 3.8 or newer there ('{wanted}')",
                where=url,
                hint="apt install python3 on the board, or name one: ssh://HOST?python=/PATH",
            )
        if status == scripts.NO_TOOL:
            return ToolError(f"the board has no '{said}'", where=url)
        if any(words in said for words in FULL):
            return self._full(0)
        hint = "name a writable folder: ssh://HOST?cache=/PATH"
        return ToolError(f"no writable folder for files there: {said}", where=url, hint=hint)

    def _shell(self, script: str, *parameters: str) -> tuple[int, str]:
        process = self._open(script, *parameters)
        try:
            process.end_input()
            out = process.read_all(1 << 16)
            return process.wait(STALL_SECONDS), out.decode(errors="replace").strip()
        finally:
            process.close()

    def _upload(self, content: bytes, sha256: str, there: str, what: str) -> None:
        if self._shell(scripts.HAVE, there, sha256)[0] != 0:
            self._put(content, sha256, there, what)
        self._there[there] = sha256

    def _put(self, content: bytes, sha256: str, there: str, what: str) -> None:
        self._count += 1
        part = self.scratch(f"upload-{self._count}")
        process = self._open(scripts.PUT, part, there, sha256)
        try:
            with contextlib.suppress(EOFError):  # a full disk ends it early, with its status
                process.write(content)
            process.end_input()
            status = process.wait(STALL_SECONDS)
        except TimeoutError:
            message = f"the upload of {what} stalled for {STALL_SECONDS:g} s"
            raise ToolError(message, where=self.address.url) from None
        finally:
            process.close()
        said = _said(process)
        if status and any(words in said for words in FULL):
            raise self._full(len(content))
        if status:
            raise ToolError(f"the upload of {what} failed: {said}", where=self.address.url)

    def _full(self, size: int) -> ToolError:
        place = self._found
        free = ""
        if place is not None:
            _, row = self._shell(scripts.SPACE, place.cache)
            cells = row.split()
            if len(cells) >= 4 and cells[3].isdigit():
                free = f", and {int(cells[3]) * 1024 / 1e6:.1f} MB are free"
        need = f": {size / 1e6:.1f} MB are needed{free}" if size else ""
        return ToolError(
            f"no space left on the board{need}",
            where=self.address.url,
            hint="free some space there, or use another folder: ssh://HOST?cache=/PATH",
        )


def _said(process: Process) -> str:
    lines = [line for line in process.errors().splitlines() if line.strip()]
    return printable(lines[-1]) if lines else "no output"
