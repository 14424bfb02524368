"""The instructions of each kernel call of generated C, counted on an emulated Cortex-M."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.firmware import emulation
from edgekd.firmware.emit import Program, body, header
from edgekd.firmware.generate import Arithmetic, program_of
from edgekd.firmware.graph import Network, read_network
from edgekd.firmware.instructions import Instructions, instructions_for
from edgekd.firmware.patches.patch_steps import FRESH, PLACES
from edgekd.firmware.patches.plan import LAYER_BY_LAYER, Patching
from edgekd.formats.tflite import read_tflite
from edgekd.store import write_beside

SAMPLES = 3
NAME = "counted"


@dataclass(frozen=True)
class CountedCall:
    """One kernel call: the operator's place in the TFLite file, or -1 for one that the generator
    added, what it does, and its instructions in each inference, those of all patches together."""

    place: int
    about: str
    instructions: tuple[int, ...]


@dataclass(frozen=True)
class CountedCalls:
    """All kernel calls in order, the instructions in one step of the emulator's clock, and whether
    some of the calls are made once for each patch of an image."""

    calls: tuple[CountedCall, ...]
    resolution: int
    in_patches: bool = False


def count_calls(
    path: Path,
    cpu: str,
    instructions: Instructions | None = None,
    patching: Patching = LAYER_BY_LAYER,
    arithmetic: Arithmetic = "micro",
) -> CountedCalls:
    """The instructions of each kernel call for random inputs, in C of these options.

    The generated C calls a counter after each kernel. Raises `InputError` for a file that becomes
    no C or a processor that is not emulated, `ToolError` if a tool fails.
    """
    network = read_network(path)
    chosen = instructions or instructions_for(cpu)
    program = program_of(network, str(path), NAME, chosen, patching, arithmetic)
    calls = program.calls
    with tempfile.TemporaryDirectory(prefix="edgekd-calls-") as work:
        folder = Path(work)
        write_beside(folder / f"{NAME}.h", header(program))
        source = folder / f"{NAME}.c"
        write_beside(source, body(program, reporting=True))
        image = emulation.build(source, cpu, folder, calls=len(calls))
        run = emulation.run(image, _inputs(network))
    places = _places(path)
    return CountedCalls(
        tuple(
            CountedCall(places.get(index, -1), about, tuple(row[number] for row in run.layers))
            for number, (index, about) in enumerate(_described(program))
        ),
        run.resolution,
        bool(program.loops),
    )


def _described(program: Program) -> list[tuple[int, str]]:
    """The tensor that each call writes, and what the call does, in which patches."""
    found = []
    for place, step in enumerate(program.steps):
        if not step.kernel:
            continue
        patches = [
            f", in {loop.rows}x{loop.columns} patches"
            for loop in program.loops
            if loop.begin <= place < loop.end
        ]
        found.append((_computed(step.output.index, program.network), step.about + "".join(patches)))
    return found


def _computed(index: int, network: Network) -> int:
    """The tensor of the file that a call writes, or for a part of it in a place of its own, the
    output of the operator that the patch is of."""
    if index < FRESH:
        return index
    return network.nodes[(index - FRESH) // PLACES].outputs[0].index


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
