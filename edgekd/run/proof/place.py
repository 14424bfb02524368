"""Where one target's files run, and with which options."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.devices import Device
from edgekd.devices.emulated.root import missing_tools
from edgekd.devices.emulated.user_mode import open_user_mode
from edgekd.devices.opening import is_foreign, not_of_its_kind, open_device
from edgekd.errors import EdgekdError
from edgekd.firmware.emulation import BOARDS
from edgekd.firmware.emulation import missing_tools as cortex_m_tools
from edgekd.run.plan import Plan
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import backend_of
from edgekd.values.measurement import Kind
from edgekd.values.target import Target


@dataclass(frozen=True)
class Place:
    """Where one target's files run. On the target's own kind of machine everything is measured;
    elsewhere `reason` says what is missing, outputs are `simulated` and there is no cost."""

    device: Device
    reason: str = ""

    @property
    def kind(self) -> Kind:
        """What a number that comes from outputs is there."""
        return "simulated" if self.reason else self.device.kind

    @property
    def facts(self) -> tuple[Any, ...]:
        """What results depend on: this machine with its processor, and a board with its own and
        its runtimes."""
        found = (self.device.name, self.kind, self.reason, platform.platform(), _processor())
        if self.device.kind != "measured" or self.device.name == "host":
            return found
        hello = self.device.hello()
        return (*found, hello.platform, hello.cpu, dict(hello.runtimes))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def place_for(plan: Plan, target: Target) -> Place:
    """The device the user named, this machine, or an emulator of the target's processor."""
    return place_of(plan.request.device, target)


def place_of(device: str | None, target: Target) -> Place:
    """The place of a target's files, by the URL of a device or without one."""
    if device:
        return Place(open_device(device))
    reason = not_of_its_kind(target)
    if not is_foreign(target):
        return Place(open_device("host"), reason)
    emulator, note = _emulator(target)
    return Place(emulator, reason + note)


def _emulator(target: Target) -> tuple[Device, str]:
    """The target's processor under QEMU where that is installed, else this machine."""
    if target.hardware.architecture == "aarch64" and not missing_tools():
        try:
            return open_user_mode(target.name), ""
        except EdgekdError as error:
            return open_device("host"), f" (no emulator: {error.message})"
    board = cortex_m(target) if "c" in target.backends else None
    return (board, "") if board else (open_device("host"), " (no emulator installed)")


def cortex_m(target: Target) -> Device | None:
    """The emulated microcontroller that generated C runs on, where it and its tools are here."""
    if cortex_m_tools() or target.hardware.cpu not in BOARDS:
        return None
    return open_device(f"cortex-m://{target.name}")


def options_for(target: Target, artifact: Artifact) -> dict[str, Any]:
    """The options that the target sets for the backend that made a file."""
    return target.backends.get(backend_of(artifact.format), {})
