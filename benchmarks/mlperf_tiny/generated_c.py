"""MLPerf Tiny's four architectures as generated C on emulated Cortex-M4, M7 and M55.

`python generated_c.py [--inputs 50] [--cmsis-nn FOLDER]`: bit-exactness against the micro runtime
and LiteRT's reference kernels, arena against both bounds, flash, stack and instructions.
"""

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "tests" / "firmware")]

from dated import write_result  # noqa: E402
from networks import NETWORKS, write_tflite  # noqa: E402
from tflite_files import by_litert, by_micro  # noqa: E402

from edgekd.firmware import emulation, hosted  # noqa: E402
from edgekd.firmware.arena import measure_arena  # noqa: E402
from edgekd.firmware.generate import generate  # noqa: E402
from edgekd.formats.graph import live_peak  # noqa: E402
from edgekd.formats.tflite import read_tflite  # noqa: E402


def differences(found: np.ndarray, expected: np.ndarray) -> int:
    return int((found != expected).sum())


def row_of(path: Path, count: int, cmsis_nn: str, work: Path) -> dict[str, Any]:
    content = path.read_bytes()
    plain = generate(path)
    x = np.random.default_rng(0).integers(-128, 128, (count, plain.numbers["input_bytes"]), np.int8)
    micro, litert = by_micro(content, x), by_litert(content, x)
    _, source = generate(path, arithmetic="litert").write(work / "litert")
    as_litert = hosted.run(hosted.build(source, work / "litert"), x)
    row: dict[str, Any] = {
        "inputs": count,
        "outputs_compared": int(micro.size),
        "distinct_outputs": len(np.unique(micro)),
        "micro_against_litert": differences(micro, litert),
        "arithmetic_litert_against_litert": differences(as_litert, litert),
        "arena_bytes": plain.numbers["arena_bytes"],
        "arena_bound_bytes": plain.numbers["arena_bound_bytes"],
        "largest_live_tensors_bytes": live_peak(read_tflite(path))[0],
        "micro_runtime_arena_bytes": measure_arena(path).value,
        "constant_bytes": plain.numbers["constant_bytes"],
        "tflite_bytes": len(content),
    }
    for cpu in emulation.BOARDS:
        row[cpu] = on(path, cpu, "", x, micro, work / cpu)
        if cmsis_nn:
            row[f"{cpu}, CMSIS-NN"] = on(path, cpu, cmsis_nn, x, micro, work / f"{cpu}-cmsis")
    return row


def on(
    path: Path, cpu: str, cmsis_nn: str, x: np.ndarray, expected: np.ndarray, work: Path
) -> dict[str, Any]:
    work.mkdir(parents=True)
    options: dict[str, Any] = {}
    build: dict[str, Any] = {}
    if cmsis_nn:
        from edgekd.firmware.cmsis_nn import flags_of, sources_of

        options = {"cmsis_nn": "mve" if cpu == "cortex-m55" else "dsp"}
        build = {"further": sources_of(Path(cmsis_nn)), "flags": flags_of(Path(cmsis_nn))}
    generated = generate(path, **options)
    _, source = generated.write(work)
    image = emulation.build(source, cpu, work, **build)
    found = emulation.run(image, x)
    return {
        "differences": differences(found.outputs, expected),
        "flash_bytes": image.flash_bytes,
        "arena_bytes": generated.numbers["arena_bytes"],
        "stack_bytes": found.stack_bytes,
        "instructions": int(np.median(found.instructions)),
        "instructions_range": [min(found.instructions), max(found.instructions)],
    }


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--inputs", type=int, default=50)
    arguments.add_argument("--cmsis-nn", default="")
    arguments.add_argument("--files", type=Path, default=None)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = given.files or Path(folder)
        rows = {
            name: row_of(
                write_tflite(name, files), given.inputs, given.cmsis_nn, Path(folder) / f"{name}-c"
            )
            for name in NETWORKS
        }
    boards = {cpu: f"qemu {board.machine}" for cpu, board in emulation.BOARDS.items()}
    tools = {
        "compiler": emulation.version(),
        "optimization": emulation.OPTIMIZATION,
        "tflite-micro": version("tflite-micro"),
        "boards": boards,
        "instructions": "simulated: counted by the emulator, one by one",
        "weights": "random, seeded; calibrated to int8",
    }
    write_result(__file__, {"tools": tools, "networks": rows})


if __name__ == "__main__":
    main()
