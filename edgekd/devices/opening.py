"""Opens a device by its URL."""

from typing import Any

from edgekd.devices import Device
from edgekd.errors import InputError, nearest
from edgekd.registry import DEVICES

NOT_KINDS = ("agent", "opening")
"""The modules here that are no kind of device: the file that boards get, and this one."""


def open_device(url: str, **session: Any) -> Device:
    """The device of a URL: `host`, or `emulated://raspberry-pi-5`.

    `session` may have `limit_s`, the longest silence of a command before it is killed, and
    `progress`, called with the seconds so far while a benchmark runs. Raises `InputError` for a
    kind of device that does not exist.
    """
    scheme, _, location = url.partition("://")
    kinds = [name for name in DEVICES.names() if name not in NOT_KINDS]
    if scheme not in kinds:
        raise InputError(
            f"unknown kind of device '{scheme}'",
            where="--device",
            allowed=", ".join(kinds),
            hint=nearest(scheme, kinds),
        )
    device: Device = DEVICES.get(scheme, where="--device").make(location, **session)
    return device
