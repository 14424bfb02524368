"""The file system of an emulated board: Debian's packages for 64-bit ARM and wheels from PyPI.

One such folder serves every board. It is made once, with the runtime versions that are installed
here, so that a difference in outputs is due to the processor.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.devices.emulated.folders import WHERE, alone, boards_folder, run_system_tool
from edgekd.devices.emulated.processors import hardware_of, system_files
from edgekd.errors import EdgekdError, InputError, raise_all
from edgekd.installed import has_module, missing_programs, versions_of
from edgekd.store import folder_beside

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
TVM = ("apache-tvm", "apache-tvm-ffi")
"""Also installed if it is installed here, without what only its compiler needs."""

USER_MODE = "qemu-aarch64-static"
USER_MODE_TOOLS = {USER_MODE: "qemu-user-static", "mmdebstrap": "mmdebstrap"}


def missing_tools() -> list[EdgekdError]:
    """The programs for user-mode emulation that are missing on this machine."""
    return missing_programs(USER_MODE_TOOLS, WHERE)


def versions() -> dict[str, str]:
    """The runtimes that a board gets, with the versions installed here. Raises `InputError` if a
    required one is missing."""
    required = {package: _version(package) for package in RUNTIMES}
    return required | {package: _version(package) for package in TVM if has_module("tvm")}


def make_base() -> Path:
    """The folder that all boards share, made unless one with the same content exists."""
    wheels = versions()
    packages = [f"{package}=={wheels[package]}" for package in RUNTIMES]
    bare = [f"{package}=={wheels[package]}" for package in TVM if package in wheels]
    key = short_key([SUITE, DEBIAN, PYTHON, PLATFORMS, packages, bare])
    base = boards_folder() / f"base-{key}"
    with alone(boards_folder()):
        if not base.is_dir():
            _refuse_offline(base)
            with folder_beside(base) as folder:
                _install_debian(folder)
                _install_wheels(folder, packages)
                if bare:
                    _install_wheels(folder, ["--no-deps", *bare])
    return base


def _refuse_offline(base: Path) -> None:
    if os.environ.get("EDGEKD_OFFLINE"):
        raise InputError(
            f"the emulator's files ({base.name}) are missing, and --offline forbids downloads",
            where="emulated board",
            hint="create them first: edgekd board create NAME",
        )


def create_root(name: str) -> Path:
    """The root folder for user-mode emulation of that target's processor.

    It shares its files with the other boards and is made unless one with the same content exists.
    Raises `InputError` for a missing tool or an unsupported processor, `ToolError` if a tool fails.
    """
    hardware = hardware_of(name)
    raise_all(missing_tools())
    base = make_base()
    system = system_files(hardware)
    board = boards_folder() / f"{name}-{short_key([base.name, system])}"
    with alone(boards_folder()):
        if not board.is_dir():
            with folder_beside(board) as folder:
                shutil.copytree(base, folder, True, None, os.link, dirs_exist_ok=True)
                for path, text in system.items():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_text(text, encoding="utf-8")
    return board


def short_key(parts: Any) -> str:
    """A name for some content: the same parts give the same name."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    versions = versions_of([package])
    if package not in versions:
        raise InputError(
            f"{package} is not installed, so its version is unknown",
            where="emulated board",
            hint="pip install 'edgekd[onnx,tflite]'",
        )
    return versions[package]


def _install_debian(folder: Path) -> None:
    packages = f"--include={','.join(DEBIAN)}"
    options = ["--quiet", "--arch=arm64", "--variant=extract", packages]
    run_system_tool(["mmdebstrap", *options, SUITE, str(folder)])
    for name in ("dev", "tmp"):  # the host's own are used
        shutil.rmtree(folder / name, ignore_errors=True)


def _install_wheels(folder: Path, packages: Sequence[str]) -> None:
    platforms = [f"--platform={platform}_aarch64" for platform in PLATFORMS]
    options = ["--quiet", "--only-binary=:all:", f"--python-version={PYTHON}", *platforms]
    target = f"--target={folder / 'packages'}"
    run_system_tool([sys.executable, "-m", "pip", "install", *options, target, *packages])
