"""One conversation with a board's first process: a line of JSON, a reply, and bytes after
either."""

import json
import selectors
import socket
import time
from pathlib import Path
from typing import Any

from edgekd.errors import ToolError

LONGEST_ANSWER = 64 << 20
_BLOCK = 1 << 16


class Link:
    """A port of a running board. `name` is the board's name in errors."""

    def __init__(self, path: Path, name: str, limit_s: float = 120.0) -> None:
        self.name = name
        self.limit_s = limit_s
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ToolError(f"the board is not running: {error.strerror}", where=name) from None
        self._socket.setblocking(False)

    def ask(self, wanted: str, content: bytes = b"", **request: Any) -> dict[str, Any]:
        """Send a request, followed by `content`, and return the reply. Raises `ToolError` with the
        board's own message if it fails, is gone, or takes too long."""
        line = json.dumps({"do": wanted, **request}).encode() + b"\n"
        try:
            self.send(line + content, self.limit_s)
            answer = json.loads(self.line(self.limit_s))
        except EOFError:
            raise ToolError("the board has shut down", where=self.name) from None
        except TimeoutError:
            raise self._silent(wanted) from None
        except ValueError:
            raise ToolError("the board sent an invalid reply", where=self.name) from None
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), dict):
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise ToolError(f"the board failed at '{wanted}': {str(said)[:500]}", where=self.name)
        return dict(answer["ok"])

    def get(self, there: str, limit: int) -> bytes:
        """The content of a file there. Raises `ToolError` if it has more than `limit` bytes."""
        size = self.ask("get", path=there, limit=limit).get("size")
        if not isinstance(size, int) or not 0 <= size <= limit:
            raise ToolError(f"{size} bytes, but at most {limit} were expected", where=there)
        try:
            return self._bytes(size)
        except EOFError:
            raise ToolError("the board has shut down", where=self.name) from None
        except TimeoutError:
            raise self._silent("get") from None

    def send(self, content: bytes, limit_s: float) -> None:
        """Send all of the content. Raises `EOFError` if the other side is gone, or
        `TimeoutError`."""
        view = memoryview(content)
        deadline = time.monotonic() + limit_s
        while view:
            self._wait(selectors.EVENT_WRITE, deadline)
            try:
                sent = self._socket.send(view[: 1 << 18])
            except BlockingIOError:
                continue
            except OSError:
                raise EOFError from None
            view = view[sent:]
            deadline = time.monotonic() + limit_s

    def line(self, limit_s: float, longest: int = LONGEST_ANSWER) -> bytes:
        """The next line without its end. Raises `EOFError` or `TimeoutError`."""
        parts: list[bytes] = []
        length = 0
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            parts.append(self._rest)
            length += len(self._rest)
            if length > longest:
                raise ToolError(f"a line of more than {longest} bytes", where=self.name)
            self._rest = self._block(deadline)
        last, _, self._rest = self._rest.partition(b"\n")
        return b"".join([*parts, last])

    def close(self) -> None:
        """Close the port."""
        self._socket.close()

    def _bytes(self, size: int) -> bytes:
        parts: list[bytes] = []
        left = size
        while left:
            block = self._rest or self._block(time.monotonic() + self.limit_s)
            parts.append(block[:left])
            self._rest = block[left:]
            left -= len(parts[-1])
        return b"".join(parts)

    def _block(self, deadline: float) -> bytes:
        while True:
            self._wait(selectors.EVENT_READ, deadline)
            try:
                block = self._socket.recv(_BLOCK)
            except BlockingIOError:
                continue
            except OSError:
                raise EOFError from None
            if not block:
                raise EOFError
            return block

    def _wait(self, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, event)
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise TimeoutError

    def _silent(self, wanted: str) -> ToolError:
        return ToolError(
            f"no reply to '{wanted}' within {self.limit_s:g} s: the board hangs, or this machine "
            "is very busy",
            where=self.name,
        )
