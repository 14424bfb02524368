"""Builds a board: kernel and file system from packages, booted once and saved in that state."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.emulated.archive import Entry, entries_of, write_archive
from edgekd.devices.emulated.folders import alone, boards_folder, run_system_tool
from edgekd.devices.emulated.link import Link
from edgekd.devices.emulated.machine import (
    KERNEL_OPTIONS,
    MEMORY_MIB,
    PORTS,
    START_SECONDS,
    Machine,
    emulator_version,
    save,
    start,
)
from edgekd.devices.emulated.processors import PROCESSORS, hardware_of
from edgekd.devices.emulated.root import DEBIAN, PYTHON, SUITE, make_base, short_key, versions
from edgekd.errors import ToolError
from edgekd.package import package_folder
from edgekd.store import folder_beside
from edgekd.values.artifact import sha256_of

GUEST = package_folder() / "devices" / "emulated" / "guest.py"
KERNEL_PACKAGE = "linux-image-arm64"
MODULES = ("virtio/virtio_mmio.ko", "char/virtio_console.ko")
PYTHON_THERE = f"/usr/bin/python{PYTHON}"
IMPORTED = (
    "argparse", "ctypes", "glob", "importlib.metadata", "json", "platform", "queue", "select",
    "signal", "statistics", "numpy", "onnxruntime", "ai_edge_litert.interpreter", "tvm.runtime.vm",
)  # fmt: skip
LEFT_OUT = (
    "usr/share/",  # documentation
    "packages/tvm/lib/libtvm_compiler.so",  # 240 MB needed only for compiling
    "packages/ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "packages/bin/",
)
"""Prefixes of paths in the root folder that no board needs."""


@dataclass(frozen=True)
class Recipe:
    """What determines a board's content. `packages` are the versions of the runtimes."""

    processor: str
    emulator: str
    packages: dict[str, str]

    @property
    def key(self) -> str:
        """A hash of everything that goes in: another hash means another board."""
        code = [sha256_of(GUEST), MODULES, IMPORTED, LEFT_OUT, KERNEL_OPTIONS, MEMORY_MIB, PORTS]
        return short_key([SUITE, DEBIAN, self.processor, self.emulator, self.packages, code])


def recipe_of(name: str) -> Recipe:
    """The recipe of a target's board with the versions installed here."""
    processor = PROCESSORS[hardware_of(name).cpu][0]
    return Recipe(processor, emulator_version(), versions())


def build(recipe: Recipe, name: str, folder: Path) -> str:
    """Fill the folder with `state`, the booted and saved machine. Returns the kernel's release.

    Raises:
        ToolError: a package can't be downloaded, or the board does not start.
    """
    base, kernel = make_base(), make_kernel()
    archive = folder / "archive"
    write_archive(_contents(base, kernel), archive)
    running = start(Machine(recipe.processor, kernel / "vmlinuz", archive))
    try:
        link = Link(running.port_path(0), name, START_SECONDS)
        try:
            release = str(link.ask("hello").get("kernel"))
            _compile_modules(link)
            link.ask("tidy")
        finally:
            link.close()
        save(running, folder / "state")
    except ToolError as error:
        said = [line for line in running.console.splitlines() if line.strip()]
        hint = f"last line of its console: {said[-1][:300]}" if said else error.hint
        raise ToolError(error.message, where=name, hint=hint) from None
    finally:
        running.stop()
    archive.unlink()
    return release


def _compile_modules(link: Link) -> None:
    """Import once what every agent imports, so that the saved board has it as bytecode."""
    code = f"from importlib import import_module\nfor name in {IMPORTED}:\n    "
    code += "try: import_module(name)\n    except ImportError: print(name)"
    done = link.ask("execute", command=[PYTHON_THERE, "-s", "-c", code], limit_s=START_SECONDS)
    if done["code"]:
        last = (str(done["stderr"]).strip().splitlines() or [f"exit code {done['code']}"])[-1]
        raise ToolError(f"its Python can't import the runtimes: {last}")


def make_kernel() -> Path:
    """A folder with `vmlinuz` and the modules of Debian's kernel, made if it does not exist."""
    final = boards_folder() / f"kernel-{SUITE}-{short_key([KERNEL_PACKAGE, MODULES])}"
    with alone(boards_folder()):
        if not final.is_dir():
            with folder_beside(final) as folder:
                _unpack_kernel(folder)
    return final


def _unpack_kernel(folder: Path) -> None:
    whole = folder / "whole"
    options = ["--quiet", "--arch=arm64", "--variant=extract", f"--include={KERNEL_PACKAGE}"]
    run_system_tool(["mmdebstrap", *options, SUITE, str(whole)])
    kernels = sorted((whole / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise ToolError("the package contains no kernel", where=KERNEL_PACKAGE)
    release = kernels[-1].name.removeprefix("vmlinuz-")
    drivers = whole / "lib/modules" / release / "kernel/drivers"
    kernels[-1].rename(folder / "vmlinuz")
    for module in MODULES:
        (drivers / module).rename(folder / Path(module).name)
    run_system_tool(["rm", "-rf", str(whole)])


def _contents(base: Path, kernel: Path) -> Iterator[Entry]:
    """The board's whole file system: the shared root, and the files that boot it."""
    yield from entries_of(base, LEFT_OUT)
    folder = stat.S_IFDIR | 0o755
    yield from (Entry(name, folder) for name in ("dev", "modules", "proc", "sys", "tmp", "files"))
    yield Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    for module in MODULES:
        name = Path(module).name
        yield Entry(f"modules/{name}", stat.S_IFREG | 0o644, kernel / name)
    yield Entry("init", stat.S_IFREG | 0o755, GUEST)
