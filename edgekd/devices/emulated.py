"""An ARM board without a board: the agent under qemu's user-mode emulation of an aarch64 processor.

It gives outputs, so accuracy and parity, bit for bit those of the real instructions. It gives no
times: what takes one cycle on the board takes any number of the host's, so latencies are said to be
unavailable. The root folder is made once from Debian's packages and PyPI's aarch64 wheels.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.devices._session import AgentDevice
from edgekd.devices._transport import LocalTransport
from edgekd.errors import EdgekdError, InputError, ToolError, raise_all
from edgekd.registry import DEVICES
from edgekd.store import cache_folder
from edgekd.target import Hardware, load_target

AGENT = Path(__file__).with_name("agent.py")
QEMU = "qemu-aarch64-static"
SUITE = "bookworm"
DEBIAN = (
    "python3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6", "libgcc-s1", "zlib1g",
    "libatomic1",
)  # fmt: skip
PYTHON = "3.11"
PLATFORMS = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
)
RUNTIMES = ("numpy", "onnxruntime", "ai-edge-litert")
"""Installed in the versions that are here, so that a difference is the processor's."""

TVM = ("apache-tvm", "apache-tvm-ffi")
"""Installed too where they are here, without what only its compiler needs."""

BUILD_SECONDS = 1800.0
NO_TIMES = "user-mode emulation gives outputs, not times: measure on the board itself"

# cpu of a target -> what qemu 7.2 emulates it with, Arm's part number, /proc/cpuinfo's features.
# A wrong cpuinfo crashes ONNX Runtime, and a processor with SVE makes LiteRT 2.3 compute wrongly.
_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = _V8 + " atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
PROCESSORS = {
    "cortex-a53": ("cortex-a53", "0xd03", _V8),
    "cortex-a57": ("cortex-a57", "0xd07", _V8),
    "cortex-a72": ("cortex-a72", "0xd08", _V8),
    "cortex-a76": ("cortex-a76", "0xd0b", _V82),
    "cortex-a78ae": ("cortex-a76", "0xd0b", _V82),  # the nearest that qemu has: Armv8.2-A too
}


@DEVICES.register()
def open_emulated(location: str, **session: Any) -> AgentDevice:
    """The processor of that target, `emulated://raspberry-pi-5`; its root is made at first use."""
    hardware = _hardware(location)
    root = create_root(location)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LD_", "PYTHON"))  # the host's libraries are for the host
    }
    environment |= {
        "QEMU_CPU": PROCESSORS[hardware.cpu][0],
        "PYTHONPATH": str(root / "packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    interpreter = [QEMU, "-L", str(root), str(root / "usr/bin" / f"python{PYTHON}"), "-s", "-u"]
    transport = LocalTransport(interpreter, AGENT, environment)
    name = f"emulated://{location}"
    return AgentDevice(name, "simulated", transport, no_times=NO_TIMES, **session)


def missing_tools() -> list[EdgekdError]:
    """What this machine lacks to make and run an emulated board."""
    tools = {QEMU: "qemu-user-static", "mmdebstrap": "mmdebstrap"}
    return [
        InputError(f"no {tool} here", where="emulated board", hint=f"apt install {package}")
        for tool, package in tools.items()
        if shutil.which(tool) is None
    ]


def create_root(name: str) -> Path:
    """The root folder of that target's board, made if no folder of the same content is there.

    It lies in `EDGEKD_CACHE` (or ~/.cache/edgekd) under boards/ and shares 200 MB of downloads with
    the others. Raises `InputError` for a missing tool or another processor, `ToolError` if a tool
    fails.
    """
    hardware = _hardware(name)
    raise_all(missing_tools())
    packages = [f"{package}=={_version(package)}" for package in RUNTIMES]
    bare = [f"{package}=={_version(package)}" for package in TVM if find_spec("tvm")]
    boards = cache_folder() / "boards"
    base = boards / f"base-{_key([SUITE, DEBIAN, PYTHON, PLATFORMS, packages, bare])}"
    system = _system_files(hardware)
    board = boards / f"{name}-{_key([base.name, system])}"
    if board.is_dir():
        return board
    with _alone(boards):
        if not base.is_dir():
            with _written_beside(base) as folder:
                _install_debian(folder)
                _install_wheels(folder, packages)
                if bare:
                    _install_wheels(folder, ["--no-deps", *bare])
        if not board.is_dir():
            with _written_beside(board) as folder:
                shutil.copytree(base, folder, True, None, os.link, dirs_exist_ok=True)
                for path, text in system.items():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_text(text, encoding="utf-8")
    return board


def _hardware(name: str) -> Hardware:
    if not name or "/" in name:
        raise InputError(
            f"no board is called '{name}'", where="--device", allowed="emulated://TARGET"
        )
    hardware = load_target(name).hardware
    if hardware.architecture != "aarch64" or hardware.cpu not in PROCESSORS:
        raise InputError(
            f"its {hardware.cpu} ({hardware.architecture}) can't be emulated",
            where=f"target {name}",
            allowed=", ".join(PROCESSORS),
        )
    return hardware


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        hint = "pip install 'edgekd[onnx,tflite]'"
        raise InputError(
            f"{package} is not here, so its version is open", where="emulated board", hint=hint
        ) from None


def _system_files(hardware: Hardware) -> dict[str, str]:
    """What runtimes read about the processor, by path; the host's own would mislead them."""
    _, part, features = PROCESSORS[hardware.cpu]
    core = (
        "processor\t: {0}\nBogoMIPS\t: 108.00\nFeatures\t: {1}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {2}\nCPU revision\t: 1\n\n"
    )
    cores = "".join(core.format(number, features, part) for number in range(hardware.cores))
    numbers = f"0-{hardware.cores - 1}\n"
    cpus = {f"sys/devices/system/cpu/{key}": numbers for key in ("possible", "present", "online")}
    return {"proc/cpuinfo": cores, **cpus}


def _install_debian(folder: Path) -> None:
    packages = f"--include={','.join(DEBIAN)}"
    options = ["--quiet", "--arch=arm64", "--variant=extract", packages]
    _run(["mmdebstrap", *options, SUITE, str(folder)])
    for name in ("dev", "tmp"):  # the host's are meant
        shutil.rmtree(folder / name, ignore_errors=True)


def _install_wheels(folder: Path, packages: Sequence[str]) -> None:
    platforms = [f"--platform={platform}_aarch64" for platform in PLATFORMS]
    options = ["--quiet", "--only-binary=:all:", f"--python-version={PYTHON}", *platforms]
    target = f"--target={folder / 'packages'}"
    _run([sys.executable, "-m", "pip", "install", *options, target, *packages])


def _run(command: Sequence[str]) -> None:
    """Run a tool to its end. Raises `ToolError` with its last line, or after the time limit."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=BUILD_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, 9)
            if isinstance(error, subprocess.TimeoutExpired):
                message = f"took more than {BUILD_SECONDS:g} s"
                raise ToolError(message, where=command[0]) from None
            raise
    if process.returncode:
        lines = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
        raise ToolError(f"exit code {process.returncode}: {lines[-1]}", where=command[0])


def _key(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process makes boards at a time; the others wait and find them made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"not writable: {error.strerror}", where=str(folder)) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """A folder beside, renamed when the block ends well, removed when it does not."""
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield beside
        beside.chmod(0o755)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
