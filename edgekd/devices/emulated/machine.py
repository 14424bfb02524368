"""One emulated machine: QEMU with a single core whose clock counts instructions.

With `-icount shift=0,sleep=off` the guest's clock advances one nanosecond per instruction, and idle
time is skipped. A time inside the guest is therefore the number of executed instructions: the same
from run to run, whatever else the host does. Caches, pipelines and frequencies are not modelled.
The host talks to it over virtio-serial ports, which are unix sockets in a folder that only the
owner can access; there is no network.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.devices.emulated.folders import run_system_tool
from edgekd.devices.emulated.guard import Guard, stands_for
from edgekd.devices.emulated.monitor import Monitor
from edgekd.errors import ToolError

QEMU = "qemu-system-aarch64"
TOOLS = {QEMU: "qemu-system-arm", "mmdebstrap": "mmdebstrap"}
PORTS = 4
"""The number of ports: the first is for control and files, each of the others for one agent."""

MEMORY_MIB = 2048
KERNEL_OPTIONS = "console=ttyAMA0 nokaslr norandmaps mitigations=off quiet loglevel=4 panic=-1"
START_SECONDS = 600.0
"""Starting takes up to a minute on a busy core."""

LONGEST_SOCKET = 100
"""The longest path of a unix socket in bytes: the system allows 107."""


@dataclass(frozen=True)
class Machine:
    """What is emulated: started either from `kernel` and `archive`, or from `state`, a saved
    machine."""

    processor: str
    kernel: Path | None = None
    archive: Path | None = None
    state: Path | None = None
    memory_mib: int = MEMORY_MIB


@dataclass(frozen=True)
class Running:
    """A started machine: its process and the folder of its sockets.

    `guard` ends it if this process is killed; `keep` lets it outlive this process.
    """

    pid: int
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, compare=False, repr=False)
    guard: Guard | None = field(default=None, compare=False, repr=False)

    @property
    def monitor_path(self) -> Path:
        """The monitor's socket."""
        return self.folder / "q"

    def port_path(self, number: int) -> Path:
        """A port's socket."""
        return self.folder / f"p{number}"

    @property
    def console(self) -> str:
        """The end of the guest's console output."""
        with contextlib.suppress(OSError):
            return (self.folder / "console").read_text(errors="replace")[-4000:]
        return ""

    def alive(self) -> bool:
        """Whether the process exists and is this machine, not a later process with the same id."""
        return stands_for(self.pid, self.folder)

    def keep(self) -> None:
        """Keep it running after this process ends."""
        if self.guard is not None:
            self.guard.let_go()

    def stop(self) -> None:
        """End it, through the monitor if that replies, and remove its sockets."""
        with contextlib.suppress(ToolError), Monitor(self.monitor_path, 5.0) as monitor:
            monitor.ask("quit")
        if not _gone(self, 5.0) and self.alive():
            os.kill(self.pid, signal.SIGKILL)
            _gone(self, 5.0)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.keep()


def _gone(running: Running, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while running.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    if running.alive():
        return False
    if running.process is not None:
        running.process.wait()  # collects its exit status
    return True


def emulator_version() -> str:
    """The emulator's version, "7.2.22". Raises `ToolError` if it does not print one."""
    said = run_system_tool([QEMU, "--version"])
    match = re.search(r"version (\d+\.\d+\.\d+)", said)
    if not match:
        raise ToolError("does not print its version", where=QEMU)
    return match[1]


def start(machine: Machine) -> Running:
    """Start it. A machine from a saved state is paused at first. It ends with this process unless
    it is kept. Raises `ToolError`."""
    folder = Path(tempfile.mkdtemp(prefix="edgekd-board-"))
    if len(str(folder)) > LONGEST_SOCKET:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="edgekd-board-", dir="/tmp"))
    try:
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                command_of(machine, folder), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ToolError(f"could not be started: {error.strerror}", where=QEMU) from None
    running = Running(process.pid, folder, process, Guard(folder, process.pid, "end"))
    try:
        _wait_for_sockets(process, running)
        if machine.state is not None:
            with Monitor(running.monitor_path) as monitor:
                monitor.wait_for("query-status", ("paused", "running"), START_SECONDS)
    except BaseException as error:
        said_last = _last_line(folder / "said")
        running.stop()
        if isinstance(error, ToolError):
            raise ToolError(error.message, where=QEMU, hint=said_last) from None
        raise
    return running


def command_of(machine: Machine, folder: Path) -> list[str]:
    """The emulator's command line for a machine with its sockets in that folder."""
    command = [
        QEMU, "-M", "virt,gic-version=3", "-cpu", machine.processor, "-smp", "1",
        "-m", str(machine.memory_mib), "-icount", "shift=0,sleep=off",
        "-rtc", "base=2026-01-01,clock=vm", "-nodefaults", "-no-user-config", "-display", "none",
        "-nic", "none", "-no-reboot", "-serial", f"file:{folder / 'console'}",
        "-qmp", f"unix:{folder / 'q'},server=on,wait=off", "-device", "virtio-serial-device",
    ]  # fmt: skip
    for number in range(PORTS):
        socket = f"socket,id=p{number},path={folder / f'p{number}'},server=on,wait=off"
        port = f"virtserialport,chardev=p{number},name=edgekd{number},nr={number + 1}"
        command += ["-chardev", socket, "-device", port]
    if machine.kernel is not None and machine.archive is not None:
        command += ["-kernel", str(machine.kernel), "-initrd", str(machine.archive)]
        command += ["-append", KERNEL_OPTIONS]
    if machine.state is not None:
        command += ["-incoming", f"exec:cat {_quoted(machine.state)}"]
    return command


def save(running: Running, state: Path) -> None:
    """Stop the machine's clock and save its state to a file, from which `Machine.state` starts."""
    with Monitor(running.monitor_path) as monitor:
        monitor.ask("stop")
        monitor.ask("migrate", uri=f"exec:cat > {_quoted(state)}")
        if monitor.wait_for("query-migrate", ("completed", "failed"), 600.0) == "failed":
            raise ToolError("the emulator could not save the machine", where=str(state))


def _quoted(path: Path) -> str:
    """Quote a path for the shell that the emulator runs."""
    return shlex.quote(str(path))


def _wait_for_sockets(process: subprocess.Popen[bytes], running: Running) -> None:
    deadline = time.monotonic() + 60.0
    wanted = [running.monitor_path, *(running.port_path(number) for number in range(PORTS))]
    while not all(path.exists() for path in wanted):
        if process.poll() is not None:
            raise ToolError(f"ended at once (exit code {process.returncode})")
        if time.monotonic() > deadline:
            raise ToolError("did not open its sockets")
        time.sleep(0.02)


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return f"its last output: {lines[-1][:300]}" if lines else ""
    return ""
