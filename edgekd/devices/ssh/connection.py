"""One ssh connection, kept alive by a thread of its own: commands in, bytes out.

asyncssh implements the protocol. ~/.ssh/config, the user's keys and agent, and known_hosts work as
they do for ssh. An unknown host key is always refused, and passwords are never asked for.
"""

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from edgekd.devices.ssh.faults import Address, HostKey, explained
from edgekd.devices.ssh.scripts import command_line
from edgekd.devices.transport import Disconnected, status_of
from edgekd.errors import EdgekdError, MissingPackage, ToolError
from edgekd.installed import has_module

R = TypeVar("R")

CONNECT_SECONDS = 20.0
KEEPALIVE_SECONDS, KEEPALIVE_MISSES = 10, 3
BEAT_SECONDS = 20.0
"""How often a watched process on the board is told that the client is alive."""

STALL_SECONDS = 60.0
"""A transfer that makes no progress for this long has failed."""

BLOCK = 1 << 18
NOISE = 1 << 16
"""Bytes that a login shell's start-up files may print before a command's own output."""


class Process:
    """A command on the board. All methods block; limits are in seconds."""

    def __init__(self, connection: "Connection", process: Any, watched: bool) -> None:
        self._connection = connection
        self._process = process
        self._tail = bytearray()
        self._tasks = [connection.start(self._drain())]
        if watched:
            self._tasks.append(connection.start(self._beat()))

    def write(self, content: bytes, limit_s: float = STALL_SECONDS) -> None:
        """Send bytes; `limit_s` applies to each block. Raises `EOFError` if nobody reads them."""
        for start in range(0, len(content), BLOCK):
            self._connection.run(self._send(content[start : start + BLOCK]), limit_s)

    def end_input(self) -> None:
        """Close its input."""
        with contextlib.suppress(Disconnected, EOFError):  # readers see the end
            self._connection.run(self._finish(), STALL_SECONDS)

    def read(self, limit_s: float) -> bytes:
        """The next bytes of stdout as they arrive, none at its end."""
        block: bytes = self._connection.run(self._process.stdout.read(BLOCK), limit_s)
        return block

    def read_all(self, most: int, limit_s: float = STALL_SECONDS) -> bytes:
        """Stdout to its end. Raises `ToolError` if it has more than `most` bytes."""
        parts, size = [], 0
        while block := self.read(limit_s):
            size += len(block)
            if size > most:
                raise ToolError(f"more than {most} bytes were received", where=self._connection.url)
            parts.append(block)
        return b"".join(parts)

    def wait(self, limit_s: float) -> int:
        """The exit status, negative for a signal. Raises `Disconnected` if none arrived."""
        self._connection.run(self._process.wait_closed(), limit_s)
        if self._process.exit_signal:
            import signal

            name = "SIG" + str(self._process.exit_signal[0])
            return -int(getattr(signal, name, signal.SIGKILL))
        if self._process.exit_status is None:
            raise Disconnected("the connection was lost", where=self._connection.url)
        return status_of(int(self._process.exit_status))

    def errors(self) -> str:
        """The end of stderr."""
        return bytes(self._tail).decode(errors="replace").strip()

    def close(self, limit_s: float = 10.0) -> None:
        """Close its input and wait until it has ended; after the limit the channel is closed."""
        if not self._connection.lost:
            self.end_input()
            with contextlib.suppress(EdgekdError, TimeoutError, EOFError):
                self._connection.run(
                    self._discard(), limit_s
                )  # else a full pipe keeps it from ending
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
        with contextlib.suppress(Exception):  # the end is reported through stdout
            while block := await self._process.stderr.read(BLOCK):
                self._tail += block
                del self._tail[:-4000]

    async def _beat(self) -> None:
        with contextlib.suppress(Exception):
            while not self._process.stdin.is_closing():
                await asyncio.sleep(BEAT_SECONDS)
                await self._send(b"\n")


class Connection:
    """A connection to one address. Raises `ToolError` if it can't be established, `Disconnected` if
    it is lost later, and `InputError` for a configuration that can't be read."""

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
                f"no reply within {CONNECT_SECONDS:g} s", where=self.url, hint="is it switched on?"
            ) from None
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether it was lost."""
        return self._ssh is None or bool(self._ssh.is_closed())

    def open(self, script: str, *parameters: str, watched: bool = False) -> Process:
        """Start a shell script on the board; the login shell's own output is skipped."""
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
        """Start a coroutine in the thread without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[return-value]

    def call(self, act: Any) -> None:
        """Schedule a call in the thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so is everything else
            self._loop.call_soon_threadsafe(act)

    def run(self, coroutine: Coroutine[Any, Any, R], limit_s: float) -> R:
        """The result of a coroutine. Raises `TimeoutError` after the limit, `EOFError` for a broken
        pipe on the board, `Disconnected` if the connection is lost."""
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
        """Disconnect and end the thread."""
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
    """The existing files with trusted host keys: given, configured, or the usual ones. A
    configuration that disables the check (UserKnownHostsFile none) trusts no host here."""
    configured = options.known_hosts or ()
    usual = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
    named = address.known_hosts or configured or (usual if configured == () else ())
    if options.known_hosts is None and not address.known_hosts:
        named = ()
    files = [path for name in named if (path := Path(name).expanduser()).is_file()]
    return [str(path) for path in files]


async def _cancel_all() -> None:
    """Cancel the loop's remaining tasks, so that none is left pending."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _after(stdout: Any, token: bytes) -> None:
    """Read up to the line with the token. Raises `ToolError` if it does not arrive."""
    seen = b""
    while not seen.endswith(token):
        byte = await stdout.read(1)
        if not byte or len(seen) > NOISE:
            said = seen[-200:].decode(errors="replace").strip().splitlines()
            words = f": {said[-1]!r}" if said else ""
            raise ToolError(f"no POSIX shell responds there{words}")
        seen += byte


def require_asyncssh() -> None:
    """Raise `MissingPackage` with the pip command if asyncssh is not installed."""
    if not has_module("asyncssh"):
        raise MissingPackage("asyncssh", "ssh", where="--device")
