"""CMSIS-NN under TensorFlow Lite Micro, built for an emulated Cortex-M.

`folder` is a checkout of tflite-micro that has what its own makefile downloads for
`OPTIMIZED_KERNEL_DIR=cmsis_nn`, in tensorflow/lite/micro/tools/make/downloads: flatbuffers,
gemmlowp, ruy and cmsis_nn. Nothing of it is copied.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.firmware import emulation

HERE = Path(__file__).resolve().parent
DOWNLOADS = "tensorflow/lite/micro/tools/make/downloads"
CPLUSPLUS = "arm-none-eabi-g++"
MICRO = "tensorflow/lite/micro"
SOURCES = (
    f"{MICRO}/*.cc", f"{MICRO}/arena_allocator/*.cc", f"{MICRO}/memory_planner/*.cc",
    f"{MICRO}/tflite_bridge/*.cc", "tensorflow/lite/core/api/*.cc", "tensorflow/lite/core/c/*.cc",
    "tensorflow/lite/kernels/*.cc", "tensorflow/lite/kernels/internal/*.cc",
    "tensorflow/lite/kernels/internal/reference/*.cc",
    "tensorflow/compiler/mlir/lite/core/api/*.cc", "tensorflow/compiler/mlir/lite/schema/*.cc",
)  # fmt: skip
KERNELS = ("add", "conv", "depthwise_conv", "fully_connected", "pad", "pooling", "reduce",
           "reshape", "softmax")  # fmt: skip
LEFT_OUT = ("_test", "test_", "mock_", "fake_", "hexdump", "debug_log", "recording_", "profiler.cc")


def sources(folder: Path) -> list[Path]:
    """The runtime, the kernels of MLPerf Tiny's operators, and CMSIS-NN."""
    found = [path for pattern in SOURCES for path in sorted(folder.glob(pattern))]
    kernels = folder / MICRO / "kernels"
    for name in KERNELS:
        fast = kernels / "cmsis_nn" / f"{name}.cc"
        found += [fast if fast.is_file() else kernels / f"{name}.cc"]
        found += [one for one in [kernels / f"{name}_common.cc"] if one.is_file()]
    found += [kernels / "kernel_util.cc", kernels / "micro_tensor_utils.cc"]
    library = sorted((folder / DOWNLOADS / "cmsis_nn" / "Source").rglob("*.c"))
    kept = [one for one in found if not any(part in one.name for part in LEFT_OUT)]
    return [*kept, *(one for one in library if not one.stem.endswith(("_f16", "_f32")))]


def _flags(folder: Path, cpu: str) -> list[str]:
    downloads = folder / DOWNLOADS
    places = (folder, downloads / "flatbuffers/include", downloads / "gemmlowp", downloads / "ruy",
              downloads / "cmsis_nn", downloads / "cmsis_nn/Include")  # fmt: skip
    return [
        *emulation.board_of(cpu).flags, "-mthumb", emulation.OPTIMIZATION, "-DCMSIS_NN",
        "-DTF_LITE_STATIC_MEMORY", "-DTF_LITE_STRIP_ERROR_STRINGS", "-DNDEBUG",
        "-DTF_LITE_MCU_DEBUG_LOG", "-ffunction-sections", "-fdata-sections", "-w",
        *(f"-I{place}" for place in places),
    ]  # fmt: skip


def _cplusplus() -> list[str]:
    return ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics",
            "-fno-unwind-tables", "-fno-use-cxa-atexit"]  # fmt: skip


def library(folder: Path, cpu: str, work: Path) -> Path:
    """The archive of all of it for one processor. One that is in `work` is kept."""
    archive = work / f"libtflm-{cpu}.a"
    if archive.is_file():
        return archive
    made = work / f"tflm-{cpu}"
    made.mkdir(exist_ok=True)
    for number, path in enumerate(sources(folder.resolve())):
        language = _cplusplus() if path.suffix == ".cc" else ["-std=c11"]
        compiler = CPLUSPLUS if path.suffix == ".cc" else emulation.COMPILER
        command = [compiler, *_flags(folder.resolve(), cpu), *language, "-c", str(path), "-o",
                   str(made / f"{number}.o")]  # fmt: skip
        subprocess.run(command, check=True)
    objects = map(str, sorted(made.glob("*.o")))
    subprocess.run(["arm-none-eabi-ar", "rcs", str(archive), *objects], check=True)
    return archive


def on(
    folder: Path, archive: Path, cpu: str, model: Path, x: np.ndarray, expected: np.ndarray
) -> dict[str, Any]:
    """One network's numbers. Flash includes the file, and the arena the interpreter's own
    structures."""
    with tempfile.TemporaryDirectory() as work:
        image, found = _run(folder, archive, cpu, model, x, Path(work))
    return {
        "inputs": len(x),
        "differences": int((found.outputs != expected).sum()),
        "flash_bytes": image.flash_bytes,
        "arena_bytes": found.stack_bytes,  # tflm_run.cc
        "instructions": int(np.median(found.instructions)),
    }


def _run(
    folder: Path, archive: Path, cpu: str, model: Path, x: np.ndarray, work: Path
) -> tuple[emulation.Image, emulation.Run]:
    board = emulation.board_of(cpu)
    table = work / "model.s"
    table.write_text(
        ".syntax unified\n.section .rodata\n.global model_file\n.balign 16\n"
        f'model_file:\n.incbin "{model.resolve()}"\n'
    )
    start = work / "start.o"
    bare = [emulation.COMPILER, *board.flags, "-mthumb", emulation.OPTIMIZATION]
    subprocess.run([*bare, "-c", str(emulation.BARE / "start.c"), "-o", str(start)], check=True)
    linked = work / "tflm.elf"
    command = [
        CPLUSPLUS, *_flags(folder.resolve(), cpu), *_cplusplus(), "-nostartfiles",
        *emulation.regions_of(board), f"-T{emulation.BARE / 'link.ld'}", "-Wl,--gc-sections",
        str(HERE / "tflm_run.cc"), str(table), str(start), str(archive), "-o", str(linked),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    flash = emulation.flash_of(linked) - emulation.flash_of(start)
    image = emulation.Image(linked, cpu, flash)
    return image, emulation.run(image, x)
