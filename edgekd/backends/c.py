"""C11 from the int8 TFLite file: model.c and model.h, compiled and run on an emulated Cortex-M
where the compiler and the emulator are here.

The arena is one static array, so its size is known exactly. Flash is what the compiler makes of the
model; instructions are counted by the emulator (`simulated`).
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from edgekd.backends import Board, Follower
from edgekd.errors import InputError
from edgekd.firmware import emulation
from edgekd.firmware.cmsis_nn import flags_of, sources_of, variant_of
from edgekd.firmware.generate import Generated, generate
from edgekd.firmware.instructions import Prefer, instructions_of
from edgekd.firmware.patches.plan import Patches, Patching
from edgekd.firmware.stored_facts import facts_in
from edgekd.formats.graph import Graph
from edgekd.registry import BACKENDS
from edgekd.values.artifact import Artifact, OpPlacement, sha256_of
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package, Tool
from edgekd.values.inspection import Forecast
from edgekd.values.measurement import Measurement, unavailable
from edgekd.values.tables import Value
from edgekd.values.target import Target

RUNS = 3


class COptions(Value):
    """C11 from the int8 TFLite file. `name` begins the names of files and functions; `arithmetic`
    says whose fully connected layers are matched to the bit, those of TFLite Micro or of LiteRT;
    `cmsis_nn` is the folder of CMSIS-NN's sources (with Include/ in it), whose kernels are called
    instead of plain C where they compute the same. `patches` says whether layers are computed patch
    by patch for a smaller arena: "auto" does so where it would exceed `arena_limit` bytes, or
    without one the target's memory. `prefer = "size"` takes the kernels of the least flash instead
    of the fast ones."""

    name: str = Field(default="model", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")
    arithmetic: Literal["micro", "litert"] = "micro"
    cmsis_nn: str = ""
    prefer: Prefer = "speed"
    patches: Patches = "auto"
    arena_limit: int | None = Field(default=None, gt=0)


@BACKENDS.register()
class PlainC(Follower):
    """C sources without a runtime, made from the int8 TFLite file."""

    info = BackendInfo(
        title="generated C",
        files=(FileKind(format="c", runtime="c"),),
        precisions=("int8",),
        follows="tflite",
        options=COptions,
        in_patches=True,
        tells_costs=True,
        needs=Needs(
            packages=(
                Package(
                    name="ai-edge-litert", module="ai_edge_litert", purpose="running TFLite files",
                    extra="tflite",
                ),
            ),
            tools=tuple(
                Tool(command=command, purpose="bare-metal Cortex-M", hint=f"apt install {package}")
                for command, package in emulation.TOOLS.items()
            ),
            activations="int8-affine",
        ),
    )  # fmt: skip

    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
        """Every operator runs as C on the processor; float ones and unknown ones are refused."""
        generated = _generated(artifact, target, COptions(**options))
        facts: dict[str, float | str] = {"kind": "estimated"}
        return artifact.placements, facts | dict(generated.numbers)

    def forecast(self, path: Path, graph: Graph, target: Target) -> Forecast:
        """The arena of a TFLite file's C, and what of it is computed in patches; nothing of a file
        that becomes no C."""
        try:
            generated = generated_for(path, target, COptions(**target.backends.get("c", {})))
        except InputError:
            return Forecast()
        arena = generated.numbers["arena_bytes"]
        return Forecast(
            facts={"c_arena_bytes": arena},
            notes=tuple(f"C: {note}" for note in generated.notes),
            activation_bytes=arena,
        )

    def follow(
        self,
        artifact: Artifact,
        target: Target,
        options: dict[str, Any],
        folder: Path,
        board: Board | None = None,
    ) -> list[Artifact]:
        """`NAME.c`, its companion `NAME.h`, and their cost on the target."""
        generated = _generated(artifact, target, COptions(**options))
        header, source = generated.write(folder)
        measurements = costs(generated, source, target, COptions(**options).cmsis_nn)
        return [
            artifact.derived(
                source,
                "compiled to C",
                format="c",
                runtime="c",
                companions={header.name: sha256_of(header)},
                facts={**artifact.facts, **dict(generated.numbers)},
                measurements=measurements,
                notes=(*artifact.notes, *generated.notes, *_notes(measurements, target)),
            )
        ]


def _generated(artifact: Artifact, target: Target, options: COptions) -> Generated:
    if artifact.format != "tflite":
        raise InputError(
            f"C is made from a TFLite file, not {artifact.format}", where=str(artifact.path)
        )
    return generated_for(artifact.path, target, options)


def generated_for(model: Path, target: Target, options: COptions, name: str = "") -> Generated:
    """The C code of a TFLite file with a target's options; `name` replaces theirs."""
    patching = Patching(options.patches, options.arena_limit or target.hardware.memory_bytes)
    generated = generate(
        model,
        name or options.name,
        facts_in(model),
        arithmetic=options.arithmetic,
        cmsis_nn=variant_of(target.hardware) if options.cmsis_nn else "",
        instructions=instructions_of(target.hardware, options.prefer),
        patching=patching,
    )
    if options.arena_limit:
        generated.check_arena(patching, "backends.c: arena_limit")
    return generated


def costs(
    generated: Generated, source: Path, target: Target, cmsis_nn: str = ""
) -> tuple[Measurement, ...]:
    """Memory, flash and instructions; what needs a missing tool is estimated or unavailable."""
    arena = float(generated.numbers["arena_bytes"])
    missing = emulation.missing_tools()
    cpu = target.hardware.cpu
    if cpu not in emulation.BOARDS or missing:
        reason = missing[0].message if missing else f"no emulated board has a {cpu}"
        constants = float(generated.numbers["constant_bytes"])
        return (
            _cost("memory_bytes", arena, "measured", "the arena; its stack comes on top"),
            _cost(
                "size_bytes", constants, "estimated", f"the constants without the code: {reason}"
            ),
            unavailable("instructions", reason, device="C"),
        )
    inputs = np.random.default_rng(0).integers(
        -128, 128, (RUNS, generated.numbers["input_bytes"]), np.int8
    )
    with tempfile.TemporaryDirectory(prefix="edgekd-c-") as work:
        library = Path(cmsis_nn)
        further = sources_of(library) if cmsis_nn else ()
        flags = flags_of(library) if cmsis_nn else ()
        image = emulation.build(source, cpu, Path(work), further=further, flags=flags)
        run = emulation.run(image, inputs)
    machine = f"qemu {emulation.BOARDS[cpu].machine}"
    optimized = " ".join((*emulation.BOARDS[cpu].flags, emulation.OPTIMIZATION))
    instructions = float(np.median(run.instructions))
    return (
        _cost("memory_bytes", arena, "measured", "the arena; the stack comes on top"),
        _cost(
            "stack_bytes",
            float(run.stack_bytes),
            "simulated",
            "stack painting in the emulated board",
            machine,
        ),
        _cost(
            "size_bytes", float(image.flash_bytes), "measured", f"code and constants, {optimized}"
        ),
        _cost("instructions", instructions, "simulated", f"median of {RUNS} inferences", machine),
    )


def _cost(
    metric: str, value: float, kind: Any, protocol: str, device: str = "the generated C"
) -> Measurement:
    conditions = {"compiler": (shutil.which(emulation.COMPILER) and emulation.version()) or "none"}
    return Measurement(
        metric=metric,
        value=value,
        kind=kind,
        device=device,
        protocol=protocol,
        conditions=conditions,
    )


def _notes(measurements: tuple[Measurement, ...], target: Target) -> list[str]:
    """Notes on what does not fit into the target."""
    limits = {
        "memory_bytes": (target.hardware.memory_bytes, "memory"),
        "size_bytes": (target.hardware.storage_bytes, "flash"),
    }
    notes = []
    for one in measurements:
        limit, where = limits.get(one.metric, (None, ""))
        if limit is not None and one.value is not None and one.value > limit:
            notes.append(
                f"does not fit: needs {one.value:,.0f} bytes of {where}, {limit:,} available"
            )
    return notes
