"""A real OpenSSH server of a test's own, and a connection to it that can be cut."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from waiting import until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def missing_server() -> str:
    """Why there is no server here, or an empty string."""
    if not Path(SSHD).exists() or not shutil.which("ssh-keygen"):
        return "no OpenSSH server here: apt install openssh-server"
    return ""


def new_key(path: Path) -> Path:
    """A key pair without a passphrase."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


class Server:
    """`sshd` on a port of 127.0.0.1 with keys of its own; `cache` is the board's folder.

    `home` takes the place of the user's: its .ssh/config calls the server `board`.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder, self.home = folder, folder / "home"
        self.cache = folder / "cache"
        self.port = free_port()
        (self.home / ".ssh").mkdir(parents=True)
        self.host_key = new_key(folder / "host_key")
        self.user_key = new_key(self.home / ".ssh" / "id_of_the_test")
        authorized = folder / "authorized_keys"
        shutil.copyfile(self.user_key.with_suffix(".pub"), authorized)
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {authorized}", "PasswordAuthentication no", "StrictModes no",
            "KbdInteractiveAuthentication no", "UsePAM no", "PidFile none", "LogLevel ERROR",
            "PermitRootLogin prohibit-password", "MaxSessions 20",
            *(settings or ["SetEnv SHLVL=1"]),  # bash then leaves the user's ~/.bashrc alone
        ]  # fmt: skip
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        self.configure()
        self.trust(self.host_key)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The board, with this Python."""
        return self.url_with(sys.executable)

    def url_with(self, python: Path | str) -> str:
        """The board, with another one."""
        return f"ssh://board?cache={self.cache}&python={python}"

    def configure(self, *more: str, port: int | None = None) -> None:
        """Write the client's ~/.ssh/config."""
        lines = [
            "Host board", "  HostName 127.0.0.1", f"  Port {port or self.port}",
            f"  User {getpass.getuser()}", f"  IdentityFile {self.user_key}",
            f"  UserKnownHostsFile {self.home}/.ssh/known_hosts", *more,
        ]  # fmt: skip
        (self.home / ".ssh" / "config").write_text("\n".join(lines) + "\n")

    def trust(self, key: Path, port: int | None = None) -> None:
        """Make that key the one that is known."""
        public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
        known = self.home / ".ssh" / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port or self.port} {public}\n")

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it when root runs it
        log = (self.folder / "sshd.log").open("ab")
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with log:
            self._process = subprocess.Popen(command, stderr=log, start_new_session=True)
        until(lambda: answers(self.port), "sshd answers")

    def stop(self) -> None:
        """End it and the sessions that it has."""
        if self._process is not None:
            self.cut()
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def cut(self) -> None:
        """Kill what serves the connections, not what listens: as if the line had been cut."""
        assert self._process is not None
        for child in descendants(self._process.pid):
            if "sshd" in "".join(command_of(child)[:1]):
                kill(child)

    def running(self) -> list[str]:
        """Commands on the board's side: they name its folder."""
        return [
            " ".join(command)
            for pid in all_processes()
            if pid != os.getpid()
            and any(str(self.cache) in word for word in command_of(pid))
            and (command := command_of(pid))
        ]

    def partial(self) -> list[Path]:
        """Files that are no whole file under their hash."""
        sessions = self.cache / "sessions"
        left = list(sessions.rglob("*")) if sessions.is_dir() else []
        return left + [path for path in self.cache.rglob("*.part*") if path.is_file()]

    def left(self) -> list[object]:
        """What is still there, after a little while: nothing, if all is well."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (self.running() or self.partial()):
            time.sleep(0.05)
        threads = [one.name for one in threading.enumerate() if one.name == "ssh"]
        return [*self.running(), *self.partial(), *threads]


class Proxy:
    """A port that passes everything on to the server until it is cut.

    `after` bytes to the server it cuts the connection by itself, `times` times.
    """

    def __init__(self, port: int, after: int = 1 << 60, times: int = 1 << 30) -> None:
        self._to, self._after, self._times = port, after, times
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close both sides of every connection."""
        for one in self._sockets:
            with_shutdown(one)
        self._sockets.clear()

    def close(self) -> None:
        with_shutdown(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [near, far]
            limit = self._after if self.connections <= self._times else 1 << 60
            for source, sink, most in ((near, far, limit), (far, near, 1 << 60)):
                threading.Thread(target=self._pass, args=(source, sink, most), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        passed = 0
        try:
            while block := source.recv(1 << 14):
                passed += len(block)
                if passed > most:
                    break
                sink.sendall(block)
        except OSError:
            pass
        with_shutdown(source)
        with_shutdown(sink)


def with_shutdown(one: socket.socket) -> None:
    """Close a socket so that whoever reads from it notices."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def command_of(pid: int) -> list[str]:
    """Its arguments; none for one that is gone, or has ended and waits for its parent."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def descendants(pid: int) -> list[int]:
    """Children and their children, as they are now."""
    parents = {each: parent_of(each) for each in all_processes()}
    found, new = [], [pid]
    while new:
        new = [each for each, parent in parents.items() if parent in new]
        found += new
    return found


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def serving(folder: Path, *settings: str) -> Iterator[Server]:
    """A server that runs until the block ends."""
    server = Server(folder, *settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
