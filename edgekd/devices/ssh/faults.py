"""A board's address, and connection errors: one clear error each, with the next command."""

import shlex
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError, InputError, ToolError


@dataclass(frozen=True)
class Address:
    """A board's address. Empty parts default to ~/.ssh/config and ssh's own defaults.

    `python` is the interpreter there, `cache` the folder for files. `keys` and `known_hosts` are
    files to use instead of the user's own (an emulated board has its own).
    """

    host: str
    user: str = ""
    port: int | None = None
    python: str = ""
    cache: str = ""
    keys: tuple[Path, ...] = ()
    known_hosts: tuple[Path, ...] = ()

    @property
    def url(self) -> str:
        """The address as the user wrote it, without options."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    @property
    def ssh(self) -> str:
        """The address for ssh's own command line."""
        port = f"-p {self.port} " if self.port else ""
        return port + (f"{self.user}@{self.host}" if self.user else self.host)


class HostKey:
    """Remembers an unknown key that a board presented."""

    def __init__(self) -> None:
        self.fingerprint = ""
        self.reached: tuple[str, int] | None = None

    def client(self) -> Any:
        """An asyncssh client that trusts only keys from the files."""
        import asyncssh

        outer = self

        class Client(asyncssh.SSHClient):
            def validate_host_public_key(
                self, host: str, addr: str, port: int, key: asyncssh.SSHKey
            ) -> bool:
                outer.fingerprint, outer.reached = key.get_fingerprint(), (host, port)
                return False

        return Client()


def explained(
    error: Exception, address: Address, key: HostKey, known_hosts: list[str]
) -> EdgekdError:
    """The edgekd error for an asyncssh error while connecting."""
    import asyncssh

    url = address.url
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _host_key(error, address, key, known_hosts)
    if isinstance(error, asyncssh.PermissionDenied):
        return ToolError(
            "the board accepts none of your keys",
            where=url,
            hint=f"ssh-copy-id {address.ssh}; a key with a passphrase has to be in the agent "
            "(ssh-add); passwords are never used",
        )
    if isinstance(error, asyncssh.Error):
        return ToolError(f"ssh failed: {error.reason}", where=url, hint=f"try: ssh {address.ssh}")
    if isinstance(error, socket.gaierror):
        return ToolError("unknown host", where=url, hint="check the name, or ~/.ssh/config")
    if isinstance(error, ConnectionRefusedError):
        return ToolError(
            "connection refused: nothing is listening there",
            where=url,
            hint="is the board's ssh server running, and is this its port?",
        )
    if isinstance(error, TimeoutError):
        return ToolError("no reply", where=url, hint="is the board switched on and reachable?")
    if isinstance(error, OSError):
        return ToolError(f"not reachable: {error.strerror or error}", where=url)
    return InputError(f"the ssh configuration can't be used: {error}", where=url)


def _host_key(error: Any, address: Address, key: HostKey, known_hosts: list[str]) -> ToolError:
    """Unknown and changed keys have different next commands; no key is ever accepted
    automatically."""
    host, port = key.reached or (address.host, address.port or 22)
    name = f"[{host}]:{port}" if port != 22 else host
    shown = f" ({key.fingerprint})" if key.fingerprint else f": {error.reason}"
    scan = f"ssh-keyscan -p {port} {shlex.quote(host)} >> ~/.ssh/known_hosts"
    if _is_listed(host, port, known_hosts):
        return ToolError(
            f"its host key{shown} differs from the known one",
            where=address.url,
            hint="someone may be intercepting the connection; if the board was reinstalled: "
            f"ssh-keygen -R {shlex.quote(name)}, then {scan}",
        )
    return ToolError(
        f"its host key{shown} is not known",
        where=address.url,
        hint=f"{scan}, then compare the fingerprint with the board's own: "
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    )


def _is_listed(host: str, port: int, known_hosts: list[str]) -> bool:
    """Whether the files have any key for that host."""
    from asyncssh.known_hosts import match_known_hosts

    if not known_hosts:
        return False
    matches = match_known_hosts(known_hosts, host, "", port if port != 22 else None)
    return any(matches[:3])
