"""`--offline`: a build that tries to use the network fails with one clear error."""

# code-key: presents

import os
import socket
from typing import Any

from edgekd.errors import InputError

# Libraries that look for newer files unless they are told not to.
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "EDGEKD_OFFLINE": "1"}


def forbid_network() -> None:
    """Make every connection from this process to another machine raise `InputError`. This machine
    (loopback, Unix sockets) stays reachable, because runtimes and emulators use it.
    """
    os.environ.update(QUIET)
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded(self: socket.socket, address: Any) -> None:
        _refuse(self, address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        _refuse(self, address)
        return connect_ex(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = guarded_ex  # type: ignore[method-assign, assignment]


def _refuse(used: socket.socket, address: Any) -> None:
    if used.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = str(address[0])
    if host != "localhost" and not host.startswith("127.") and host != "::1":
        raise InputError(
            f"--offline forbids a connection to {host}",
            where="--offline",
            hint="fetch the data first (edgekd data fetch), or leave out --offline",
        )
