#!/usr/bin/python3.11
"""The first process of an emulated board: it serves files and agents over virtio-serial ports.

There is no network. Each port carries one conversation at a time: JSON lines from the host, with
one reply per line. `put` and `get` transfer a file's bytes right after the line. `agent` hands the
port over to an agent until that ends, which is announced by a line that starts with a zero byte.
After `once`, the board powers off when its first port is closed, so that it never outlives the
process that started it. Standard library only; imports nothing from edgekd.
"""
# ruff: noqa: PTH103, PTH105, PTH108, PTH112, PTH113, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

Table = dict[str, Any]
FILES = "/files"
MODULES = ("virtio_mmio", "virtio_console")
MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"))
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
    "PYTHONPATH": "/packages", "PYTHONHASHSEED": "0",
}  # fmt: skip
POWER_OFF = 0x4321FEDC
PAUSE_S = 1.0
"""Seconds between checks for a host; they cost nothing, as the clock skips idle time."""

PATIENCE_S = 10
"""How long an agent may continue after its host is gone, in seconds of the board's own clock."""


class Gone(Exception):
    """The host has closed the port."""


class Board:
    """All ports, the folder for files, and whether the board ends with its first conversation."""

    def __init__(self, paths: list[str], files: str) -> None:
        self.files = files
        self.once = False
        self.ports = [Port(path, self) for path in paths]

    def power_off(self) -> None:
        """Power off the machine."""
        ctypes.CDLL(None).reboot(POWER_OFF)


class Port:
    """Lines and bytes over one file descriptor; `child` is the agent that uses it, if any."""

    def __init__(self, path: str, board: Board) -> None:
        self.path = path
        self.board = board
        self.number = -1
        self.rest = b""
        self.child: Any = None
        self.free = threading.Event()

    def open(self) -> None:
        """Start over: data for an earlier conversation is dropped."""
        self.number, self.rest = os.open(self.path, os.O_RDWR), b""

    def close(self) -> None:
        """Close it."""
        os.close(self.number)

    def more(self) -> None:
        """Wait for bytes."""
        block = os.read(self.number, 1 << 16)
        if not block:
            raise Gone
        self.rest += block

    def line(self) -> bytes:
        """The next line."""
        while b"\n" not in self.rest:
            self.more()
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def copy(self, size: int, stream: Any) -> None:
        """Read the next `size` bytes into a file."""
        while size:
            if not self.rest:
                self.more()
            part, self.rest = self.rest[:size], self.rest[size:]
            stream.write(part)
            size -= len(part)

    def write(self, content: bytes) -> None:
        """Write all of the content."""
        view = memoryview(content)
        while view:
            view = view[os.write(self.number, view[: 1 << 15]) :]

    def say(self, message: Table) -> None:
        """Send one reply."""
        self.write(json.dumps(message).encode() + b"\n")

    def connected(self) -> bool:
        """Whether a host is connected."""
        poll = select.poll()
        poll.register(self.number, select.POLLIN)
        return not any(event & select.POLLHUP for _, event in poll.poll(0))


def put(port: Port, request: Table) -> Table:
    """Store a file, which gets its name when it is complete; without a size, only say if it
    exists."""
    path = os.path.join(port.board.files, request["name"])
    if request.get("size") is None:
        return {"path": path, "there": os.path.isfile(path)}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "wb") as stream:
        port.copy(request["size"], stream)
    os.replace(path + ".part", path)
    return {"path": path, "there": True}


def get(port: Port, request: Table) -> None:
    """Reply with a file's size, followed by its bytes unless it is larger than the limit."""
    with open(request["path"], "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        port.say({"ok": {"size": size}})
        if size > request["limit"]:
            return
        while block := stream.read(1 << 16):
            port.write(block)


def remove(port: Port, request: Table) -> Table:
    """Remove files that are no longer needed."""
    for path in request["paths"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return {}


def execute(port: Port, request: Table) -> Table:
    """A command's exit status and output: 127 if it does not exist, 124 if it exceeded the
    limit."""
    command, limit = request["command"], request["limit_s"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=limit, env=ENVIRONMENT, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return {"code": 127, "stdout": "", "stderr": f"{command[0]}: {error.strerror}"}
    except subprocess.TimeoutExpired:
        said = f"{command[0]}: did not end within {limit:g} s"
        return {"code": 124, "stdout": "", "stderr": said}
    out, err = (said.decode(errors="replace") for said in (done.stdout, done.stderr))
    return {"code": done.returncode, "stdout": out, "stderr": err}


def hello(port: Port, request: Table) -> Table:
    """What the system is; the nonce tells this reply from an earlier one."""
    here = {"kernel": os.uname().release, "files": port.board.files}
    return {**here, "nonce": request.get("nonce")}


def once(port: Port, request: Table) -> Table:
    """Power off when the first port is closed."""
    port.board.once = True
    return {}


def end(port: Port, request: Table) -> Table:
    """End the agent on another port and wait until that port is free."""
    other = port.board.ports[request["port"]]
    if other.child is not None:
        other.child.kill()
    other.free.wait()
    return {}


def fresh(port: Port, request: Table) -> Table:
    """End and remove the leftovers of a killed session: its agents, files and partial files."""
    for number, other in enumerate(port.board.ports):
        if other is not port:
            end(port, {"port": number})
    for name in os.listdir(port.board.files):
        path = os.path.join(port.board.files, name)
        if name.startswith("session-"):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.isdir(path):
            remove(port, {"paths": [os.path.join(path, one) for one in os.listdir(path)
                                    if one.endswith(".part")]})  # fmt: skip
    return {}


def tidy(port: Port, request: Table) -> Table:
    """Fill free memory with zeros, so that a saved board is small."""
    with open("/proc/sys/vm/drop_caches", "w") as stream:
        stream.write("3")
    with open("/proc/meminfo") as stream:
        memory = dict(line.split(":", 1) for line in stream)
    free = int(memory["MemFree"].split()[0]) * 1024 - (64 << 20)
    zeros = bytes(1 << 20)
    with mmap.mmap(-1, max(free, 1 << 20)) as spare:
        for start in range(0, len(spare) - len(zeros) + 1, len(zeros)):
            spare[start : start + len(zeros)] = zeros
    return {"bytes": free}


def agent(port: Port, request: Table) -> None:
    """Run an agent on this port; end it if the host is gone and it does not notice."""
    port.say({"ok": {}})
    with tempfile.TemporaryFile(dir=port.board.files) as errors:
        port.child = subprocess.Popen(
            [sys.executable, "-s", "-u", *request["arguments"]],
            stdin=port.number,
            stdout=port.number,
            stderr=errors,
            env={**ENVIRONMENT, **request.get("environment", {})},
        )
        left = PATIENCE_S
        while port.child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                port.child.wait(PAUSE_S)
            left = PATIENCE_S if port.connected() else left - 1
            if left == 0:
                port.child.kill()
        code, port.child = port.child.returncode, None
        errors.seek(0, os.SEEK_END)
        errors.seek(max(errors.tell() - 4000, 0))
        last = errors.read().decode(errors="replace")
    if port.connected():
        port.write(b"\0" + json.dumps({"code": code, "errors": last}).encode() + b"\n")


ANSWERED = {"put": put, "remove": remove, "execute": execute, "hello": hello, "once": once,
            "end": end, "fresh": fresh, "tidy": tidy}  # fmt: skip
LONG = {"agent": agent, "get": get}
"""The requests that have a reply."""


def answer(port: Port, line: bytes) -> None:
    """Handle one request."""
    try:
        request = json.loads(line)
        wanted = request["do"]
        if wanted in LONG:
            LONG[wanted](port, request)
        elif wanted in ANSWERED:
            port.say({"ok": ANSWERED[wanted](port, request)})
        else:
            port.say({"error": f"unknown request {wanted!r}"})
    except Gone:
        raise
    except Exception as error:
        port.say({"error": f"{type(error).__name__}: {error}"})


def serve(port: Port) -> None:
    """Serve one conversation after another on a port."""
    while True:
        port.open()
        port.free.set()
        try:
            while not port.connected():
                time.sleep(PAUSE_S)
            port.free.clear()
            while True:
                answer(port, port.line())
        except (Gone, OSError):
            pass
        port.close()
        if port.board.once and port is port.board.ports[0]:
            port.board.power_off()


def start_system() -> None:
    """Mount what a system needs and load the kernel modules for the ports."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, place in MOUNTS:
        os.makedirs(place, exist_ok=True)
        if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
            print(f"mount {place}: {os.strerror(ctypes.get_errno())}", flush=True)
    for module in MODULES:
        with open(f"/modules/{module}.ko", "rb") as stream:
            image = stream.read()
        if libc.syscall(105, image, len(image), b""):  # init_module on 64-bit ARM
            print(f"{module}: {os.strerror(ctypes.get_errno())}", flush=True)


def ports(wanted: int) -> list[str]:
    """The ports' device files, once the kernel has created them all."""
    while True:
        names = sorted(f"/dev/{name}" for name in os.listdir("/dev") if name.startswith("vport"))
        if len(names) >= wanted:
            return names
        time.sleep(0.1)


def main() -> None:
    """Never returns: this is the system's first process."""
    start_system()
    os.makedirs(FILES, exist_ok=True)
    board = Board(ports(4), FILES)
    for port in board.ports:
        threading.Thread(target=serve, args=(port,), daemon=True).start()
    print("edgekd: ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
