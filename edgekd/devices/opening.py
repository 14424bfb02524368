"""Open a device by its URL, and check that it suits a target."""

import platform
from typing import Any

from edgekd.devices import Device
from edgekd.errors import InputError, MissingRuntime, nearest
from edgekd.registry import DEVICES
from edgekd.values.backend_lookup import backend_info
from edgekd.values.target import Target

MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "armv6l": "armv7"}


def open_device(url: str, **session: Any) -> Device:
    """The device of a URL: `host`, `ssh://user@board`, or `emulated://raspberry-pi-5`.

    `session` may have `limit_s`, the longest silence of a command before it is killed, and
    `progress`, called with the seconds so far while a benchmark runs. Raises `InputError` for a
    kind of device that does not exist.
    """
    scheme, _, location = url.partition("://")
    kinds = DEVICES.names()
    if scheme not in kinds:
        raise InputError(
            f"unknown kind of device '{scheme}'",
            where="--device",
            allowed=", ".join(kinds),
            hint=nearest(scheme, kinds),
        )
    device: Device = DEVICES.get(scheme, where="--device").make(location, **session)
    return device


def arch_mismatch(device: Device, target: Target) -> InputError | None:
    """The fault if a device has another architecture than the target, so that measurements on it
    would not be the target's."""
    machine = device.hello().machine
    found, wanted = MACHINES.get(machine.lower(), machine), target.hardware.architecture
    if found == wanted:
        return None
    return InputError(
        f"{device.name} is {found}, but {target.name} is {wanted}",
        where="--device",
        hint=f"give a {target.title}, or omit --device",
    )


def _here() -> str:
    machine = platform.machine()
    return MACHINES.get(machine.lower(), machine)


def is_foreign(target: Target) -> bool:
    """Whether the target's processor is of another architecture than this machine's."""
    return _here() != target.hardware.architecture


def not_of_its_kind(target: Target) -> str:
    """Why this machine is not of the target's own kind, so that what it measures is not the
    target's; an empty string if it is."""
    if is_foreign(target):
        return f"this machine is {_here()}; give a {target.title} with --device"
    if target.accelerators:
        return f"needs the {target.accelerators[0].name}; run on a {target.title}"
    return ""


def missing_runtimes(device: Device, target: Target) -> list[str]:
    """A note for each of the target's runtimes that the device lacks, with how to install it.

    Raises `MissingRuntime` if the device has none of them, so that nothing could be measured.
    """
    hello = device.hello()
    wanted = {
        kind.runtime: name
        for name in target.backends
        for kind in backend_info(name).files
        if kind.runtime in hello.runtimes  # generated C and the like need none
    }
    missing = [runtime for runtime in wanted if not hello.runtimes.get(runtime)]
    how = {runtime: hello.install.get(runtime, "no package is known") for runtime in missing}
    if missing and len(missing) == len(wanted):
        raise MissingRuntime(
            f"{device.name} has no {' and no '.join(missing)}: no {target.name} file runs there",
            where="--device",
            hint="; or ".join(how.values()),
        )
    return [
        f"{device.name} has no {runtime}: '{wanted[runtime]}' files will not run ({how[runtime]})"
        for runtime in missing
    ]
