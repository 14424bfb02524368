"""Generated C on an emulated Cortex-M: QEMU's boards, bare metal, semihosting.

QEMU lets each instruction take 64 nanoseconds (`-icount shift=6`), longer than a tick of the
processor's own timer, which therefore counts the instructions of an inference exactly. The result
is `simulated` and is not in cycles, since neither the pipeline nor wait states are modelled.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.errors import EdgekdError, InputError, ToolError, raise_all
from edgekd.installed import missing_programs
from edgekd.package import package_folder
from edgekd.processes import how_it_ended, run_tool

COMPILER = "arm-none-eabi-gcc"
SIZE = "arm-none-eabi-size"
QEMU = "qemu-system-arm"
TOOLS = {COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi", QEMU: "qemu-system-arm"}
BARE = package_folder() / "firmware" / "bare"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
OPTIMIZATION = "-O2"
WHERE = "emulated Cortex-M"
BUILD_SECONDS = 120.0
RUN_SECONDS = 600.0
ICOUNT_SHIFT = 6


@dataclass(frozen=True)
class Board:
    """One of QEMU's boards: the addresses of code and data, and the rate of its timer."""

    machine: str
    flags: tuple[str, ...]
    clock_hz: int
    flash: tuple[int, int]
    memory: tuple[int, int]


_MPS2 = ((0x0, 4 << 20), (0x2000_0000, 4 << 20))

# qemu 7.2, hw/arm/mps2.c (SYSCLK 25 MHz, 4 MiB of code and of data memory) and mps2-tz.c (an547:
# 32 MHz, 512 KiB of instruction and of data memory beside the processor, SRAM behind them).
BOARDS = {
    "cortex-m4": Board("mps2-an386", ("-mcpu=cortex-m4", "-mfloat-abi=soft"), 25_000_000, *_MPS2),
    "cortex-m7": Board("mps2-an500", ("-mcpu=cortex-m7", "-mfloat-abi=soft"), 25_000_000, *_MPS2),
    "cortex-m55": Board(
        "mps3-an547",
        ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
        32_000_000,
        (0x0, 512 << 10),
        (0x2000_0000, 512 << 10),
    ),
}


@dataclass(frozen=True)
class Image:
    """A linked program. `flash_bytes` is the model's share: its code and constants, and the library
    functions it calls."""

    path: Path
    cpu: str
    flash_bytes: int


@dataclass(frozen=True, eq=False)
class Run:
    """Outputs (N, bytes), the instructions of each inference to within `resolution`, and the stack
    they used."""

    outputs: np.ndarray
    instructions: tuple[int, ...]
    resolution: int
    stack_bytes: int
    layers: tuple[tuple[int, ...], ...] = ()
    """The instructions of each inference by kernel call, of an image that counts them."""


def missing_tools() -> list[EdgekdError]:
    """A fault for each missing tool that is needed to compile for and emulate a Cortex-M."""
    return missing_programs(TOOLS, WHERE)


def version() -> str:
    """The cross compiler's version line."""
    return _run((COMPILER, "--version"), BUILD_SECONDS).splitlines()[0].strip()


def board_of(cpu: str) -> Board:
    """The board that has such a processor."""
    if cpu not in BOARDS:
        raise InputError(
            f"no board with a {cpu} is emulated", where="device", allowed=", ".join(BOARDS)
        )
    return BOARDS[cpu]


def build(
    source: Path,
    cpu: str,
    folder: Path,
    *,
    further: Sequence[Path] = (),
    flags: Sequence[str] = (),
    calls: int = 0,
) -> Image:
    """Compile and link NAME.c (with NAME.h beside it) and its runner for the emulated board.

    Warnings are errors; the results are in `folder`. `further` sources and `flags` are those of
    CMSIS-NN, if it is used. With `calls`, the source reports the end of each of that many kernel
    calls to `edgekd_called`, and they are counted apart. Raises `InputError` for a processor that
    is not emulated or a model that does not fit the board, `ToolError` if a tool fails.
    """
    board = board_of(cpu)
    model = folder / f"{source.stem}.o"
    common = (COMPILER, *board.flags, "-mthumb", OPTIMIZATION, *flags, f"-I{source.parent}")
    _run((*common, *WARNINGS, "-c", str(source), "-o", str(model)), BUILD_SECONDS)
    harness = tuple(folder / f"edgekd_{name}.o" for name in ("start", "run"))
    for made in harness:
        code = BARE / f"{made.stem.removeprefix('edgekd_')}.c"
        macros = (*_macros(source.stem), f"-I{BARE}", *([f"-DCALLS={calls}"] if calls else []))
        _run((*common, "-std=gnu11", *macros, "-c", str(code), "-o", str(made)), BUILD_SECONDS)
    linked = folder / f"{source.stem}.elf"
    command = (
        *common, "-nostartfiles", *regions_of(board), f"-T{BARE / 'link.ld'}", "-Wl,--gc-sections",
        "-ffunction-sections", *map(str, (*harness, model, *further)), "-lc", "-lgcc",
        "-o", str(linked),
    )  # fmt: skip
    _run(command, BUILD_SECONDS)
    return Image(linked, cpu, flash_of(linked) - sum(flash_of(made) for made in harness))


ENDS = tuple(
    f"{kind}_{part}" for kind in ("INPUT", "OUTPUT") for part in ("COUNT", "OFFSETS", "SIZES")
)


def _macros(name: str) -> tuple[str, ...]:
    """The names that run.c uses for parts of the model's header."""
    macro = name.upper()
    values = {
        "MODEL_HEADER": f'"{name}.h"',
        "MODEL_INVOKE": f"{name}_invoke",
        **{part: f"{macro}_{part}" for part in ("ARENA_ALIGNMENT", "ARENA_BYTES", *ENDS)},
    }
    return tuple(f"-D{key}={value}" for key, value in values.items())


def regions_of(board: Board) -> tuple[str, ...]:
    """The linker's options for a board's code and data memory."""
    return tuple(
        f"-Wl,--defsym={name}_{part}={value}"
        for name, region in (("FLASH", board.flash), ("RAM", board.memory))
        for part, value in zip(("ORIGIN", "LENGTH"), region, strict=True)
    )


def flash_of(path: Path) -> int:
    """Code and constants of an object file or program; `size` counts constants as text."""
    words = _run((SIZE, str(path)), BUILD_SECONDS).splitlines()[1].split()
    return int(words[0]) + int(words[1])


def run(image: Image, inputs: np.ndarray) -> Run:
    """The outputs for the bytes of all inputs (N, bytes), and the instructions of each inference.

    Raises `ToolError` if the program faults or does not end in time.
    """
    board = board_of(image.cpu)
    with tempfile.TemporaryDirectory(prefix="edgekd-cortex-m-") as work:
        folder = Path(work)
        (folder / "inputs").write_bytes(np.ascontiguousarray(inputs, np.int8).tobytes())
        command = (
            QEMU, "-M", board.machine, "-nographic", "-monitor", "none", "-serial", "none",
            "-icount", f"shift={ICOUNT_SHIFT}", "-semihosting-config", "enable=on,target=native",
            "-kernel", str(image.path.resolve()),
        )  # fmt: skip
        _run(command, RUN_SECONDS, folder)
        outputs = np.frombuffer((folder / "outputs").read_bytes(), np.int8)
        ticks = np.frombuffer((folder / "ticks").read_bytes(), "<u8")
        stack = int.from_bytes((folder / "stack").read_bytes(), "little")
        counted = folder / "calls"
        calls = np.frombuffer(counted.read_bytes(), "<u8") if counted.exists() else ticks[:0]
    if len(ticks) != len(inputs):
        raise ToolError(f"only {len(ticks)} of {len(inputs)} inferences ran", where=image.path.name)
    per_tick = 1_000_000_000 / board.clock_hz / 2**ICOUNT_SHIFT
    instructions = tuple(round(int(one) * per_tick) for one in ticks)
    by_call = np.rint(calls.reshape(len(inputs), -1) * per_tick).astype(int)
    layers = tuple(tuple(row) for row in by_call.tolist()) if by_call.size else ()
    rows = outputs.reshape(len(inputs), -1)
    return Run(rows, instructions, int(np.ceil(per_tick)), stack, layers)


def _run(command: Sequence[str], limit_s: float, folder: Path | None = None) -> str:
    """The output of a tool. Raises an error if it fails or does not end in time."""
    program = command[0]
    raise_all(missing_programs({program: TOOLS.get(program, program)}, WHERE))
    done = run_tool(command, limit_s, program, program, folder=folder)
    if done.status:
        too_large = (line for line in done.lines if "overflowed" in line or "no room" in line)
        for line in too_large:
            raise InputError(f"the model does not fit the board: {line}", where=WHERE)
        raise ToolError(f"{how_it_ended(done.status)}: {done.last_line}", where=program)
    return done.stdout.decode("utf-8", errors="replace")
