"""The compiler drivers that link a library for another architecture."""

import platform
import shutil

from edgekd.errors import MissingTool

LINKERS = {
    "x86_64": ("g++", "g++"),
    "aarch64": ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"),
    "armv7": ("arm-linux-gnueabihf-g++", "g++-arm-linux-gnueabihf"),
}
"""For each architecture its compiler driver and the Debian package that brings it."""


def linker_of(architecture: str) -> str:
    """The compiler driver that links for `architecture` on this machine.

    Raises `MissingTool` with the package to install when it is not on the PATH.
    """
    name, package = ("g++", "g++") if architecture == platform.machine() else LINKERS[architecture]
    if shutil.which(name) is None:
        raise MissingTool(
            f"{name} is not installed: it links the library for {architecture}",
            where="backends.tvm",
            hint=f"apt install {package}",
        )
    return name
