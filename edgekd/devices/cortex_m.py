"""A Cortex-M emulated by QEMU: generated C runs on it, other files run on this machine.

Every sample runs through the same C compiled for this machine, and the first samples also on the
emulated processor; a difference between the two is an error. The emulator counts instructions,
which the compiler reports, and gives no times.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.devices import Options, Samples, Streamed
from edgekd.devices.agent import Fault, from_model, to_model
from edgekd.devices.host import open_host
from edgekd.devices.replies import Hello, Profiled, ProfiledOperator, fault_of
from edgekd.errors import InputError, MissingRuntime, ToolError, raise_all
from edgekd.firmware import emulation, hosted
from edgekd.firmware.call_counts import count_calls
from edgekd.firmware.instructions import Instructions, instructions_of
from edgekd.firmware.patches.plan import Patching
from edgekd.package import package_folder
from edgekd.registry import DEVICES
from edgekd.store import hash_code
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.measurement import Kind
from edgekd.values.target import Target, load_target

CHECKED = 8
NO_TIMES = "an emulated Cortex-M counts instructions and gives no times: measure on a real board"


@DEVICES.register()
def open_cortex_m(location: str = "cortex-m4", **session: Any) -> "CortexM":
    """Open `cortex-m://cortex-m4`: the processor of a target, by its name or .toml file."""
    target = load_target(location or "cortex-m4")
    emulation.board_of(target.hardware.cpu)
    raise_all(emulation.missing_tools())
    return CortexM(target, **session)


class CortexM:
    """`Device` over the emulator, and over this machine for files other than C."""

    kind: Kind = "simulated"

    def __init__(self, target: Target, checked: int = CHECKED, **session: Any) -> None:
        self.cpu = target.hardware.cpu
        self.name = f"cortex-m://{self.cpu}"
        self._target = target
        self.checked = checked
        self._host = open_host(**session)

    def hello(self) -> Hello:
        """The processor, with what decides its instructions: the kernels and the compiler. The
        runtimes are this machine's."""
        here = self._host.hello()
        kernels = hash_code(package_folder() / "firmware")
        chosen = self._target.backends.get("c", {})
        options = f"{self._instructions(chosen)}, {chosen.get('arithmetic', 'micro')}"
        return Hello(
            platform="QEMU", machine="thumb", python="", cpu=self.cpu, cores=1,
            runtimes=here.runtimes, install=here.install, conditions={},
            features=(f"kernels {kernels[:16]}: {options}", emulation.version()),
        )  # fmt: skip

    def _instructions(self, chosen: Options) -> Instructions:
        """The kernels of the target's C."""
        return instructions_of(self._target.hardware, chosen.get("prefer", "speed"))

    def can_run(self, artifact: Artifact) -> str:
        """Generated C runs; other files run on this machine, for their outputs only."""
        return "" if artifact.runtime == "c" else self._host.can_run(artifact)

    def probe(
        self, path: Path, runtime: str, options: Options
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """The inputs and outputs reported by this machine's runtime; C files do not record
        theirs."""
        if runtime == "c":
            raise InputError("generated C describes its tensors in its header", where=str(path))
        return self._host.probe(path, runtime, options)

    def infer(
        self, artifact: Artifact, inputs: Sequence[np.ndarray], options: Options
    ) -> tuple[np.ndarray, ...]:
        """Every output (N, ...) for inputs (N, ...).

        Raises `InputError` for inputs that the artifact does not take, `ToolError` if the emulated
        processor computes something else than this machine.
        """
        if artifact.runtime != "c":
            return self._host.infer(artifact, inputs, options)
        taken = _bytes_of(inputs, artifact)
        with tempfile.TemporaryDirectory(prefix="edgekd-c-") as work:
            computed = hosted.run(hosted.build(artifact.path, Path(work)), taken)
            image = emulation.build(artifact.path, self.cpu, Path(work))
            first = emulation.run(image, taken[: self.checked]).outputs
        if not np.array_equal(first, computed[: self.checked]):
            raise ToolError(
                f"the emulated {self.cpu} computes different values than this machine",
                where=str(artifact.path),
            )
        return _outputs_of(computed, artifact)

    def benchmark(
        self, artifacts: Sequence[Artifact], options: Options | Sequence[Options], *, quick: bool
    ) -> list[Samples]:
        """There are no times, only the reason."""
        return [Samples((), None, None, {}, quick=quick, invalid=NO_TIMES) for _ in artifacts]

    def profile(self, artifact: Artifact, options: Options, *, quick: bool) -> Profiled:
        """The instructions of each kernel call of the C that is generated from a TFLite file with
        the target's own options and memory: in patches where that has no room otherwise.

        Raises `MissingRuntime` for another file, `InputError` for one that becomes no C.
        """
        if artifact.format != "tflite":
            reason = "instructions are counted for a TFLite file, from which C is generated"
            raise MissingRuntime(reason, where=str(artifact.path))
        chosen, hardware = self._target.backends.get("c", {}), self._target.hardware
        limit = chosen.get("arena_limit", hardware.memory_bytes)
        if chosen.get("cmsis_nn"):
            raise MissingRuntime(
                "the target's C calls CMSIS-NN, whose kernels are not counted one by one",
                where=str(artifact.path),
            )
        counted = count_calls(
            artifact.path,
            self.cpu,
            self._instructions(chosen),
            Patching(chosen.get("patches", "auto"), limit),
            chosen.get("arithmetic", "micro"),
        )
        return Profiled(
            operators=tuple(
                ProfiledOperator(name=each.about, op=each.about, index=each.place,
                                 values=each.instructions)
                for each in counted.calls
            ),
            resolution=counted.resolution, unit="instructions",
            patches=f"computed partly in patches, as for {limit:,} bytes of memory"
            if counted.in_patches else "",
        )  # fmt: skip

    def stream(
        self, artifact: Artifact, options: Options, streams: int, *, quick: bool
    ) -> Streamed:
        """There are no times: raises `MissingRuntime` with the reason."""
        raise MissingRuntime(NO_TIMES, where=str(artifact.path))

    def close(self) -> None:
        """End this machine's agent."""
        self._host.close()


def _bytes_of(inputs: Sequence[np.ndarray], artifact: Artifact) -> np.ndarray:
    """(N, bytes): each sample's inputs as the generated C takes them, one after another."""
    place, layout = str(artifact.path), str(artifact.facts.get("input_layout", ""))
    if len(inputs) != len(artifact.inputs) or len({len(x) for x in inputs}) != 1:
        names = ", ".join(info.name for info in artifact.inputs)
        raise InputError(f"it takes {len(artifact.inputs)} inputs ({names})", where=place)
    rows = []
    for x, info in zip(inputs, artifact.inputs, strict=True):
        try:
            ready = to_model(x, {**info.model_dump(), "dtype": _width(info)}, layout)
        except Fault as fault:
            raise fault_of(fault.answer["error"], place) from None
        rows.append(ready.reshape(len(x), -1).view(np.int8))
    return np.concatenate(rows, axis=1)


def _width(info: TensorInfo) -> str:
    """The type in generated C: indices are int32, whatever the artifact says."""
    return "int32" if info.dtype.startswith("int") and info.dtype != "int8" else info.dtype


def _outputs_of(content: np.ndarray, artifact: Artifact) -> tuple[np.ndarray, ...]:
    """The outputs from each sample's bytes (N, bytes)."""
    sizes = [math.prod(info.shape[1:]) for info in artifact.outputs]
    parts = np.split(content, np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        from_model(part, info.model_dump()).reshape(len(content), *info.shape[1:])
        for part, info in zip(parts, artifact.outputs, strict=True)
    )
