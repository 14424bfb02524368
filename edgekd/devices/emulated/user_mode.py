"""A target's processor under QEMU's user-mode emulation: outputs, so accuracy and parity.

The outputs are bit for bit those of the real instructions, and cheap. There are no times: one cycle
on the board takes any number of cycles on the host, so latencies are unavailable; a created board
(`emulated://NAME`) has them. There is no URL for it: `edgekd compress` uses it if no device is
named.
"""

import os
from typing import Any

from edgekd.devices.emulated.processors import PROCESSORS, hardware_of
from edgekd.devices.emulated.root import PYTHON, USER_MODE, create_root
from edgekd.devices.session import AgentDevice
from edgekd.devices.transport import AGENT, LocalTransport


def no_times(name: str) -> str:
    """Why there is no latency, and how to get one."""
    return (
        "user-mode emulation gives outputs, not times: measure on a real board, or simulate "
        f"with 'edgekd board create {name}' and --device emulated://{name}"
    )


def open_user_mode(name: str, **session: Any) -> AgentDevice:
    """The processor of that target; its root folder is made on first use."""
    hardware = hardware_of(name)
    root = create_root(name)
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LD_", "PYTHON"))  # the host's libraries are for the host only
    }
    environment |= {
        "QEMU_CPU": PROCESSORS[hardware.cpu][0],
        "PYTHONPATH": str(root / "packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = root / "usr/bin" / f"python{PYTHON}"
    interpreter = [USER_MODE, "-L", str(root), str(python), "-s", "-u"]
    transport = LocalTransport(interpreter, AGENT, environment)
    return AgentDevice(
        f"{name}, emulated in user mode", "simulated", transport, no_times=no_times(name), **session
    )
