"""QEMU's monitor protocol (QMP), as far as boards need it: one JSON object per line."""

import json
import socket
import time
from pathlib import Path
from typing import Any, Self

from edgekd.errors import ToolError


class Monitor:
    """A connection to the monitor of a running emulator, by its socket's path."""

    def __init__(self, path: Path, limit_s: float = 120.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(limit_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ToolError(f"the emulator does not respond: {error.strerror}") from None
        self._stream = self._socket.makefile("rb")
        self._line()  # its greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """The reply to a command. Raises `ToolError` with the emulator's own message."""
        request = {"execute": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise ToolError("the emulator has exited") from None
        while True:
            answer = self._line()
            if "error" in answer:
                raise ToolError(f"the emulator refused '{command}': {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def wait_for(self, command: str, done: tuple[str, ...], limit_s: float) -> str:
        """Ask until `status` is one of those. Raises `ToolError` if it takes too long."""
        deadline = time.monotonic() + limit_s
        while True:
            status = str(self.ask(command).get("status"))
            if status in done:
                return status
            if time.monotonic() > deadline:
                raise ToolError(f"the emulator's {command} is still '{status}'")
            time.sleep(0.05)

    def close(self) -> None:
        """Close the connection; the emulator keeps running."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> dict[str, Any]:
        try:
            line = self._stream.readline()
            answer = json.loads(line)
        except TimeoutError:
            raise ToolError("the emulator's monitor does not respond") from None
        except (OSError, ValueError):
            raise ToolError("the emulator has exited") from None
        if not isinstance(answer, dict):
            raise ToolError("the emulator's monitor sent an invalid reply")
        return answer
