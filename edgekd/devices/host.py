"""This machine: the agent as a child process with the same interpreter."""

import sys
from pathlib import Path
from typing import Any

from edgekd.devices.session import AgentDevice
from edgekd.devices.transport import AGENT, LocalTransport
from edgekd.errors import InputError
from edgekd.registry import DEVICES


@DEVICES.register()
def open_host(location: str = "", *, agent: Path = AGENT, **session: Any) -> AgentDevice:
    """This machine. `session` are the keyword arguments of `AgentDevice`: limit_s, progress."""
    if location:
        raise InputError(
            f"'host' takes no location, found '{location}'", where="--device", allowed="host"
        )
    transport = LocalTransport([sys.executable, "-u"], agent)
    return AgentDevice("host", "measured", transport, **session)
