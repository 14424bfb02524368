"""The instructions of each kernel call of generated C, counted on an emulated Cortex-M."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.firmware import emulation
from edgekd.firmware.emit import Program, body, header
from edgekd.firmware.generate import program_of
from edgekd.firmware.graph import Network, read_network
from edgekd.firmware.instructions import instructions_for
from edgekd.formats.tflite import read_tflite
from edgekd.store import write_beside

SAMPLES = 3
NAME = "counted"
_CALL = re.compile(r"^(    \w+\(&layer_(\d+),.*\);)$", re.MULTILINE)


@dataclass(frozen=True)
class CountedCall:
    """One kernel call: the operator's place in the TFLite file, or -1 for one that the generator
    added, what it does, and its instructions in each inference."""

    place: int
    about: str
    instructions: tuple[int, ...]


@dataclass(frozen=True)
class CountedCalls:
    """All kernel calls in order, and the instructions in one step of the emulator's clock."""

    calls: tuple[CountedCall, ...]
    resolution: int


def count_calls(path: Path, cpu: str) -> CountedCalls:
    """The instructions of each kernel call for random inputs.

    The generated C calls a counter after each kernel. Raises `InputError` for a file that becomes
    no C or a processor that is not emulated, `ToolError` if a tool fails.
    """
    network = read_network(path)
    program = program_of(network, str(path), NAME, instructions_for(cpu))
    calls = program.calls
    with tempfile.TemporaryDirectory(prefix="edgekd-calls-") as work:
        folder = Path(work)
        write_beside(folder / f"{NAME}.h", header(program))
        source = folder / f"{NAME}.c"
        write_beside(source, _reporting(program))
        image = emulation.build(source, cpu, folder, calls=len(calls))
        run = emulation.run(image, _inputs(network))
    places = _places(path)
    return CountedCalls(
        tuple(
            CountedCall(places.get(step.output.index, -1), step.about,
                        tuple(row[number] for row in run.layers))
            for number, step in enumerate(calls)
        ),
        run.resolution,
    )  # fmt: skip


def _reporting(program: Program) -> str:
    """The generated C, which reports the end of each kernel call."""
    declared = "extern void edgekd_called(int call);\n\n"
    return declared + _CALL.sub(r"\1\n    edgekd_called(\2);", body(program))


def _places(path: Path) -> dict[int, int]:
    """The place of the operator that writes each tensor."""
    return {
        int(key.partition(":")[0]): place
        for place, op in enumerate(read_tflite(path).ops)
        for key in op.outputs
        if key
    }


def _inputs(network: Network) -> np.ndarray:
    """(N, bytes) random inputs; indices are 0, which is always in range."""
    draw = np.random.default_rng(0)
    parts = [
        draw.integers(-128, 128, (SAMPLES, one.elements)).astype(np.int8)
        if one.dtype == "int8"
        else np.zeros((SAMPLES, one.bytes), np.int8)
        for one in network.inputs
    ]
    return np.concatenate(parts, axis=1)
