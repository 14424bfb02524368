"""CUDA kernels without a GPU: a stand-in driver library, TVM's own GPU schedules, real cubins.

Without `libcuda.so.1` TVM silently embeds CUDA source instead of machine code. So where the driver
is missing, a stub with its symbols is built, and the result is inspected.
"""

import ctypes
import shutil
import struct
from pathlib import Path
from typing import Any

from edgekd.errors import MissingTool, ToolError
from edgekd.processes import run_tool

DRIVER = "libcuda.so.1"
DRIVER_SYMBOLS = (
    "cuDeviceGetName",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuLaunchKernelEx",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuTensorMapEncodeTiled",
)
FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)
EM_CUDA = 190
BUILD_SECONDS = 60.0
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: what the stub answers to every call


def refuse_without_tools() -> None:
    """Raise `MissingTool` if nvcc, or gcc for the stub, is not on the PATH."""
    for tool, hint in (
        ("nvcc", "install NVIDIA's CUDA toolkit and put nvcc on the PATH"),
        ("gcc", "apt install gcc"),
    ):
        if shutil.which(tool) is None:
            raise MissingTool(
                f"{tool} is not installed: it compiles the GPU kernels",
                where="backends.tvm",
                hint=hint,
            )


def environment(folder: Path, inherited: dict[str, str]) -> dict[str, str]:
    """Environment variables for TVM's process: nvcc as the compiler, and the stub if there is no
    driver."""
    variables = {
        "TVM_CUDA_COMPILE_MODE": "nvcc",
        "NVCC_APPEND_FLAGS": "--no-compress",  # so that the machine code can be inspected
    }
    if not _has_driver():
        stub = _stub(folder)
        paths = [str(stub.parent), inherited.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
    return variables


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _stub(folder: Path) -> Path:
    source, library = folder / "stub.c", folder / DRIVER
    lines = [f"int {name}(void) {{ return {NO_DEVICE}; }}" for name in DRIVER_SYMBOLS]
    source.write_text("\n".join(lines) + "\n")
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{DRIVER}", "-o", str(library), str(source)]
    run_tool(command, BUILD_SECONDS, "gcc", str(source)).require_success("gcc", str(source))
    return library


def scheduled(module: Any) -> tuple[Any, list[str]]:
    """Bind every kernel to blocks and threads by TVM's default rules; also the names of the kernels
    that no rule fits."""
    from tvm import tirx
    from tvm.s_tir import dlight

    rules = [
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    ]
    module = dlight.ApplyDefaultSchedule(*rules)(module)
    unbound = [
        name.name_hint
        for name, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc) and "threadIdx" not in function.script()
    ]
    return module, unbound


def check_machine_code(library: Path, arch: str) -> None:
    """Raise `ToolError` unless the library holds an ELF for NVIDIA's `arch` (sm_87)."""
    data = library.read_bytes()
    at = data.find(FATBIN_MAGIC)
    architectures = _architectures(data, at) if at >= 0 else set()
    if arch not in architectures:
        names = ", ".join(sorted(architectures)) or "none"
        raise ToolError(
            f"the library has no machine code for {arch}; found: {names}",
            where=f"backends.tvm: {library.name}",
            hint="run nvcc by hand to see whether it compiles for that architecture",
        )


def _architectures(data: bytes, start: int) -> set[str]:
    """The architectures of the CUDA ELFs from `start` on: e_machine 190, `sm` in e_flags."""
    architectures = set()
    at = data.find(b"\x7fELF", start)
    while at >= 0:
        (machine,) = struct.unpack_from("<H", data, at + 18)
        if machine == EM_CUDA:
            version = data[at + 8]
            (flags,) = struct.unpack_from("<I", data, at + 48)
            # ABI 8 and later keep the number in the second byte, earlier ones in the first.
            architectures.add(f"sm_{flags >> 8 & 0xFF if version >= 8 else flags & 0xFF}")
        at = data.find(b"\x7fELF", at + 4)
    return architectures
