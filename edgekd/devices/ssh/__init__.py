"""A board over ssh: `ssh://[user@]board[:port]`, with `?python=/path` and `?cache=/path`."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from edgekd.devices.session import AgentDevice
from edgekd.devices.ssh.connection import require_asyncssh
from edgekd.devices.ssh.faults import Address
from edgekd.devices.ssh.transport import SshTransport
from edgekd.devices.transport import AGENT
from edgekd.errors import InputError, nearest
from edgekd.registry import DEVICES

ALLOWED = "ssh://[user@]board[:port][?python=/path&cache=/path]"

_URL = re.compile(
    r"(?:(?P<user>[^@]*)@)?(?:\[(?P<six>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^@:/?\[\]]+))"
    r"(?::(?P<port>[^@:/?]*))?/?(?:\?(?P<options>.*))?"
)
# Neither may look like an option or contain characters special to a ProxyCommand's shell.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PATH = re.compile(r"/[^\0-\x1f\x7f]*")


@DEVICES.register()
def open_ssh(location: str, *, agent: Path = AGENT, **session: Any) -> AgentDevice:
    """The board at `[user@]board[:port]`, connected to on first use.

    Options: `python`, the interpreter there that has the runtimes, and `cache`, a folder there for
    files. Raises `InputError` for an invalid address, `MissingPackage` without asyncssh.
    """
    address = parse_address(location)
    require_asyncssh()
    return AgentDevice(address.url, "measured", SshTransport(address, agent), **session)


def parse_address(location: str) -> Address:
    """Parse what follows `ssh://`. Raises `InputError` also for a password in the URL, where every
    process could see it and reports would record it."""
    match = _URL.fullmatch(location)
    if not match:
        raise _refused(f"'{_without_password(location)}' is not a valid address")
    user, host = match["user"], match["host"] or match["six"]
    if user is not None and ":" in user:
        raise InputError(
            "passwords are not allowed in a URL",
            where="--device",
            allowed=ALLOWED,
            hint=f"use a key: ssh-copy-id {user.partition(':')[0]}@{host}",
        )
    if user is not None and not _NAME.fullmatch(user):
        raise _refused(f"'{user}' is not a valid user name")
    if match["host"] and not _NAME.fullmatch(host):
        raise _refused(f"'{host}' is not a valid host name")
    port = match["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _refused(f"'{port}' is not a valid port")
    options = _options(match["options"] or "")
    python, cache = options.get("python", ""), options.get("cache", "")
    return Address(host, user or "", int(port) if port else None, python, cache)


def _options(text: str) -> dict[str, str]:
    options = {}
    for pair in filter(None, text.split("&")):
        key, _, value = pair.partition("=")
        if key not in ("python", "cache"):
            raise InputError(
                f"unknown option '{key}'",
                where="--device",
                allowed="python, cache",
                hint=nearest(key, ("python", "cache")),
            )
        path = unquote(value)
        if not _PATH.fullmatch(path):
            raise _refused(f"{key}: '{path}' is not an absolute path")
        options[key] = path
    return options


def _without_password(location: str) -> str:
    return re.sub(r"^([^@:]*):.*@", r"\1:...@", location)


def _refused(message: str) -> InputError:
    return InputError(message, where="--device", allowed=ALLOWED)
