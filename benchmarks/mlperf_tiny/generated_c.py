"""MLPerf Tiny's four architectures as generated C on emulated Cortex-M4, M7 and M55.

`python generated_c.py [--inputs 50] [--cmsis-nn FOLDER [--cmsis-inputs 50]] [--tflm FOLDER]`:
bit-exactness against the micro runtime and LiteRT's reference kernels, arena against both bounds,
flash, stack and instructions; beside them those of CMSIS-NN called from the C, and of TensorFlow
Lite Micro with CMSIS-NN (tflm.py). `--tflm-only --beside RESULT.json` adds the latter to a result.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent / "tests"
sys.path[:0] = [str(HERE), str(HERE.parent), str(TESTS / "support")]

import tflm  # noqa: E402
from dated import write_result  # noqa: E402
from litert_reference import by_litert, by_micro  # noqa: E402
from networks import NETWORKS, pictures, write_tflite  # noqa: E402

from edgekd.firmware import emulation, hosted  # noqa: E402
from edgekd.firmware.arena import measure_arena  # noqa: E402
from edgekd.firmware.cmsis_nn import flags_of, sources_of  # noqa: E402
from edgekd.firmware.generate import Generated, generate  # noqa: E402
from edgekd.firmware.instructions import Instructions, instructions_for  # noqa: E402
from edgekd.formats.graph import live_peak  # noqa: E402
from edgekd.formats.tflite import read_tflite  # noqa: E402


def micro_arena(path: Path) -> dict[str, Any]:
    """The arena in which the micro runtime runs it, and what its allocator counts of that."""
    found = measure_arena(path)
    if found.value is None:
        raise AssertionError(found.reason)
    counted = int(found.conditions["counted_by_its_allocator"])
    return {"micro_runtime_arena_bytes": int(found.value), "counted_by_its_allocator": counted}


def differences(found: np.ndarray, expected: np.ndarray) -> int:
    return int((found != expected).sum())


def library(folder: Path, cpu: str, work: Path) -> list[Path]:
    """CMSIS-NN's objects for one processor."""
    made = work / f"cmsis-{cpu}"
    made.mkdir()
    sources = [str(path.resolve()) for path in sources_of(folder)]
    options = [*emulation.board_of(cpu).flags, "-mthumb", emulation.OPTIMIZATION]
    command = [emulation.COMPILER, *options, *flags_of(folder.resolve()), "-c", *sources]
    subprocess.run(command, cwd=made, check=True)
    return sorted(made.glob("*.o"))


def row_of(path: Path, count: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What holds on every processor, the inputs and the micro runtime's outputs."""
    content = path.read_bytes()
    plain = generate(path)
    shown = pictures((plain.numbers["input_bytes"],), count, 2).numpy()
    x = (np.rint(shown * 255) - 128).astype(np.int8)
    micro, litert = by_micro(content, x), by_litert(content, x)
    with tempfile.TemporaryDirectory() as work:
        _, source = generate(path, arithmetic="litert").write(Path(work))
        as_litert = hosted.run(hosted.build(source, Path(work)), x)
    row: dict[str, Any] = {
        "inputs": count,
        "outputs_compared": int(micro.size),
        "distinct_output_values": len(np.unique(micro)),
        "distinct_output_rows": len(np.unique(micro, axis=0)),
        "micro_against_litert": differences(micro, litert),
        "arithmetic_litert_against_litert": differences(as_litert, litert),
        "arena_bytes": plain.numbers["arena_bytes"],
        "arena_bound_bytes": plain.numbers["arena_bound_bytes"],
        "largest_live_tensors_bytes": live_peak(read_tflite(path))[0],
        **micro_arena(path),
        "constant_bytes": plain.numbers["constant_bytes"],
        "tflite_bytes": len(content),
    }
    return row, x, micro


def checked_on_host(path: Path, x: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """The same C under sanitizers on every input, for either kind of instructions, and what two
    static analysers find: every warning ends this."""
    found = 0
    for instructions in get_args(Instructions):
        found += _differences_on_host(path, instructions, x, expected)
    return {
        "inputs": len(x),
        "differences_under_sanitizers": found,
        "sanitizers": "address, undefined",
        "nothing_found_by": ["gcc -fanalyzer", "cppcheck, without the tables' contents"],
    }


def _differences_on_host(
    path: Path, instructions: Instructions, x: np.ndarray, expected: np.ndarray
) -> int:
    with tempfile.TemporaryDirectory() as work:
        _, source = generate(path, instructions=instructions).write(Path(work))
        program = hosted.build(source, Path(work), ("-O1", *hosted.SANITIZERS))
        found = differences(hosted.run(program, x), expected)
        bare = Path(work) / "bare.c"  # cppcheck takes minutes for the tables, which hold no code
        bare.write_text(re.sub(r"(table_\d+\[\d+\] = )\{[^}]*\}", r"\1{0}", source.read_text()))
        analysers = (
            ["gcc", *hosted.WARNINGS, "-O1", "-fanalyzer", "-c", str(source), "-o", f"{source}.o"],
            ["cppcheck", "--std=c11", "--enable=warning,portability,performance", "--inconclusive",
             "--error-exitcode=9", "--quiet", str(bare)],
        )  # fmt: skip
        for command in analysers:
            subprocess.run(command, check=True, capture_output=True)
    return found


def on(generated: Generated, cpu: str, x: np.ndarray, expected: np.ndarray, **build: Any) -> Any:
    """One processor's numbers."""
    with tempfile.TemporaryDirectory() as work:
        _, source = generated.write(Path(work))
        image = emulation.build(source, cpu, Path(work), **build)
        found = emulation.run(image, x)
    return {
        "inputs": len(x),
        "differences": differences(found.outputs, expected),
        "flash_bytes": image.flash_bytes,
        "arena_bytes": generated.numbers["arena_bytes"],
        "stack_bytes": found.stack_bytes,
        "instructions": int(np.median(found.instructions)),
        "instructions_range": [min(found.instructions), max(found.instructions)],
    }


def under_tflm(
    given: argparse.Namespace,
    cpu: str,
    path: Path,
    x: np.ndarray,
    expected: np.ndarray,
    folder: Path,
) -> dict[str, Any]:
    """The micro runtime's numbers with CMSIS-NN, or why there are none."""
    if given.tflm is None:
        return {"unavailable": "no checkout of tflite-micro: give --tflm FOLDER"}
    if cpu not in given.tflm_cores:
        return {"unavailable": f"not measured: --tflm-cores has no {cpu}"}
    archive = tflm.library(given.tflm, cpu, given.tflm_built or folder)
    return tflm.on(given.tflm, archive, cpu, path, x, expected)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--inputs", type=int, default=50)
    arguments.add_argument("--cmsis-nn", type=Path, default=None)
    arguments.add_argument("--cmsis-inputs", type=int, default=50)
    arguments.add_argument("--files", type=Path, default=None)
    arguments.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    arguments.add_argument("--tflm", type=Path, help="a checkout of tflite-micro: tflm.py")
    arguments.add_argument("--tflm-built", type=Path, help="where its libraries are kept")
    arguments.add_argument("--tflm-cores", nargs="+", default=list(emulation.BOARDS))
    arguments.add_argument("--tflm-only", action="store_true")
    arguments.add_argument("--beside", type=Path, help="a result that has the other networks")
    given = arguments.parse_args()
    tools = {
        "compiler": emulation.version(),
        "optimization": emulation.OPTIMIZATION,
        "tflite-micro": version("tflite-micro"),
        "boards": {cpu: f"qemu {board.machine}" for cpu, board in emulation.BOARDS.items()},
        "instructions": "simulated: counted by the emulator, one by one",
        "weights": "random, seeded; calibrated to int8",
    }
    rows: dict[str, Any] = {}
    if given.beside:
        rows = json.loads(given.beside.read_text(encoding="utf-8"))["networks"]
    with tempfile.TemporaryDirectory() as folder:
        objects = {}
        if given.cmsis_nn:
            objects = {cpu: library(given.cmsis_nn, cpu, Path(folder)) for cpu in emulation.BOARDS}
        for name in given.networks:
            path = write_tflite(name, given.files or Path(folder))
            row, x, expected = row_of(path, given.inputs)
            few = given.cmsis_inputs
            for cpu in emulation.BOARDS:
                key = f"{cpu}, CMSIS-NN under TensorFlow Lite Micro"
                row[key] = under_tflm(given, cpu, path, x[:few], expected[:few], Path(folder))
            if given.tflm_only:
                rows[name] |= row
                write_result(__file__, {"tools": tools, "networks": rows})
                continue
            rows[name] = row
            rows[name]["on_the_host"] = checked_on_host(path, x, expected)
            for cpu in emulation.BOARDS:
                generated = generate(path, instructions=instructions_for(cpu))
                rows[name][cpu] = on(generated, cpu, x, expected)
                if cpu == "cortex-m4":
                    plain = generate(path, instructions="plain")
                    rows[name][f"{cpu}, plain"] = on(plain, cpu, x[:few], expected[:few])
                if objects:
                    generated = generate(path, cmsis_nn="mve" if cpu == "cortex-m55" else "dsp")
                    rows[name][f"{cpu}, CMSIS-NN"] = on(
                        generated, cpu, x[:few], expected[:few],
                        further=objects[cpu], flags=flags_of(given.cmsis_nn),
                    )  # fmt: skip
            write_result(__file__, {"tools": tools, "networks": rows})


if __name__ == "__main__":
    main()
