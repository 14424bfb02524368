"""One connection over ssh, kept alive by a thread of its own: commands in, bytes out.

asyncssh does the protocol. ~/.ssh/config, the user's keys and agent, and known_hosts decide as they
do for ssh; a host key that is not known is always refused, and passwords are never asked for.
"""

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from edgekd.devices._transport import Disconnected, status_of
from edgekd.devices.ssh.faults import Address, HostKey, explained
from edgekd.devices.ssh.scripts import command_line
from edgekd.errors import EdgekdError, MissingPackage, ToolError
from edgekd.installed import has_module

R = TypeVar("R")

CONNECT_SECONDS = 20.0
KEEPALIVE_SECONDS, KEEPALIVE_MISSES = 10, 3
BEAT_SECONDS = 20.0
"""How often a process that is watched over there hears that the client lives."""

STALL_SECONDS = 60.0
"""A transfer that moves nothing for that long has failed."""

BLOCK = 1 << 18
NOISE = 1 << 16
"""Bytes that a login shell's start-up files may print before a command's own output."""


class Process:
    """A command over there. All methods block; limits are in seconds."""

    def __init__(self, connection: "Connection", process: Any, watched: bool) -> None:
        self._connection = connection
        self._process = process
        self._tail = bytearray()
        self._tasks = [connection.start(self._drain())]
        if watched:
            self._tasks.append(connection.start(self._beat()))

    def write(self, content: bytes, limit_s: float = STALL_SECONDS) -> None:
        """Hand over bytes; `limit_s` is for each block. Raises `EOFError` where nobody reads."""
        for start in range(0, len(content), BLOCK):
            self._connection.run(self._send(content[start : start + BLOCK]), limit_s)

    def end_input(self) -> None:
        """Nothing more is written."""
        with contextlib.suppress(Disconnected, EOFError):  # whoever reads on is told
            self._connection.run(self._finish(), STALL_SECONDS)

    def read(self, limit_s: float) -> bytes:
        """The next bytes of stdout as they come, none at its end."""
        block: bytes = self._connection.run(self._process.stdout.read(BLOCK), limit_s)
        return block

    def read_all(self, most: int, limit_s: float = STALL_SECONDS) -> bytes:
        """Stdout to its end. Raises `ToolError` if it is more than `most` bytes."""
        parts, size = [], 0
        while block := self.read(limit_s):
            size += len(block)
            if size > most:
                raise ToolError(f"more than {most} bytes came", where=self._connection.url)
            parts.append(block)
        return b"".join(parts)

    def wait(self, limit_s: float) -> int:
        """The exit status, negative for a signal. Raises `Disconnected` if none came."""
        self._connection.run(self._process.wait_closed(), limit_s)
        if self._process.exit_signal:
            import signal

            name = "SIG" + str(self._process.exit_signal[0])
            return -int(getattr(signal, name, signal.SIGKILL))
        if self._process.exit_status is None:
            raise Disconnected("the connection was lost", where=self._connection.url)
        return status_of(int(self._process.exit_status))

    def errors(self) -> str:
        """The last of stderr."""
        return bytes(self._tail).decode(errors="replace").strip()

    def close(self, limit_s: float = 10.0) -> None:
        """End its input and wait until it has ended; after the limit the channel is closed."""
        if not self._connection.lost:
            self.end_input()
            with contextlib.suppress(EdgekdError, TimeoutError, EOFError):
                self._connection.run(self._discard(), limit_s)  # or it can't end for a full pipe
                self.wait(limit_s)
        for task in self._tasks:
            task.cancel()
        self._connection.call(self._process.close)

    async def _send(self, block: bytes) -> None:
        self._process.stdin.write(block)
        await self._process.stdin.drain()

    async def _finish(self) -> None:
        self._process.stdin.write_eof()

    async def _discard(self) -> None:
        while await self._process.stdout.read(BLOCK):
            pass

    async def _drain(self) -> None:
        with contextlib.suppress(Exception):  # what ends it is told by stdout
            while block := await self._process.stderr.read(BLOCK):
                self._tail += block
                del self._tail[:-4000]

    async def _beat(self) -> None:
        with contextlib.suppress(Exception):
            while not self._process.stdin.is_closing():
                await asyncio.sleep(BEAT_SECONDS)
                await self._send(b"\n")


class Connection:
    """A connection to one address. Raises `ToolError` if it can't be made, `Disconnected` when it
    is lost later; `InputError` for a configuration that can't be read."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.url = address.url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True)
        self._thread.start()
        self._ssh: Any = None
        try:
            self._ssh = self.run(self._connect(), CONNECT_SECONDS + 5)
        except TimeoutError:
            self.close()
            raise ToolError(
                f"no answer within {CONNECT_SECONDS:g} s", where=self.url, hint="is it switched on?"
            ) from None
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether it is over."""
        return self._ssh is None or bool(self._ssh.is_closed())

    def open(self, script: str, *parameters: str, watched: bool = False) -> Process:
        """Start a shell script over there; what the login shell prints first is passed over."""
        token = secrets.token_hex(12)
        line = command_line(script, token, *parameters)
        process = self.run(
            self._ssh.create_process(line, encoding=None, request_pty=False, env={}, send_env=()),
            CONNECT_SECONDS,
        )
        try:
            self.run(_after(process.stdout, token.encode() + b"\n"), CONNECT_SECONDS)
        except (ToolError, TimeoutError):
            self.call(process.close)
            raise
        return Process(self, process, watched)

    def start(self, coroutine: Coroutine[Any, Any, R]) -> "asyncio.Future[R]":
        """Have the thread run it, and go on."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[return-value]

    def call(self, act: Any) -> None:
        """Have the thread call something soon."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is all else
            self._loop.call_soon_threadsafe(act)

    def run(self, coroutine: Coroutine[Any, Any, R], limit_s: float) -> R:
        """What a coroutine gives. Raises `TimeoutError` after the limit, `EOFError` for a broken
        pipe over there, `Disconnected` where the connection is gone."""
        import asyncssh

        if not self._thread.is_alive():
            coroutine.close()
            raise Disconnected("the connection is closed", where=self.url)
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, limit_s), self._loop)
        try:
            return future.result()
        except TimeoutError:
            raise
        except (asyncssh.Error, OSError) as error:
            if self._ssh is None:
                raise
            if isinstance(error, BrokenPipeError) and not self.lost:
                raise EOFError from None
            if isinstance(error, asyncssh.ChannelOpenError) and not self.lost:
                why = f"the board refused a session: {error.reason}"
                raise ToolError(why, where=self.url) from None
            raise Disconnected("the connection was lost", where=self.url) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Hang up and end the thread."""
        if self._ssh is not None and not self.lost:
            with contextlib.suppress(Exception):
                self._loop.call_soon_threadsafe(self._ssh.close)
                self.run(self._ssh.wait_closed(), 5.0)
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
        if not self._loop.is_running():
            self._loop.close()

    async def _connect(self) -> Any:
        import asyncssh

        address = self.address
        key = HostKey()
        known_hosts: list[str] = []
        given: dict[str, Any] = {
            "username": address.user or (),
            "port": address.port or (),
            "client_keys": [str(path) for path in address.keys] or (),
            "client_factory": key.client,
            "password_auth": False,
            "kbdint_auth": False,
            "agent_forwarding": False,
            "connect_timeout": CONNECT_SECONDS,
            "login_timeout": CONNECT_SECONDS,
            "keepalive_interval": KEEPALIVE_SECONDS,
            "keepalive_count_max": KEEPALIVE_MISSES,
        }
        try:
            options = asyncssh.SSHClientConnectionOptions(host=address.host, **given)
            known_hosts = _known_hosts(address, options)
            return await asyncssh.connect(address.host, known_hosts=known_hosts or b"", **given)
        except (asyncssh.Error, OSError, ValueError) as error:
            raise explained(error, address, key, known_hosts) from None


def _known_hosts(address: Address, options: Any) -> list[str]:
    """The files with trusted host keys: given, configured, or the usual ones; those that are there.

    A configuration that switches the check off (UserKnownHostsFile none) trusts nobody here.
    """
    configured = options.known_hosts or ()
    usual = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
    named = address.known_hosts or configured or (usual if configured == () else ())
    if options.known_hosts is None and not address.known_hosts:
        named = ()
    files = [path for name in named if (path := Path(name).expanduser()).is_file()]
    return [str(path) for path in files]


async def _cancel_all() -> None:
    """End what still waits in the loop, so that nothing is left pending in it."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _after(stdout: Any, token: bytes) -> None:
    """Read up to the token's line. Raises `ToolError` when it does not come."""
    seen = b""
    while not seen.endswith(token):
        byte = await stdout.read(1)
        if not byte or len(seen) > NOISE:
            said = seen[-200:].decode(errors="replace").strip().splitlines()
            words = f": {said[-1]!r}" if said else ""
            raise ToolError(f"no POSIX shell answers there{words}")
        seen += byte


def require_asyncssh() -> None:
    """Raises `MissingPackage` with the pip command where it is not installed."""
    if not has_module("asyncssh"):
        raise MissingPackage("asyncssh", "ssh", where="--device")
