"""Coral's Edge TPU: a static check of the int8 TFLite file, and the vendor's compiler if present.

Both report the same: a placement for each operator, and the facts `kind`, `edgetpu_ops`,
`cpu_ops`, `parameter_bytes`, `cached_bytes` and `streamed_bytes`. `edgetpu_compiler` exists only in
Google's apt archive for x86-64 Debian, so it is a tool of this machine and not of the board.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.backends import Board, Follower
from edgekd.backends.edgetpu.placement import edgetpu_placements
from edgekd.errors import InputError, ToolError
from edgekd.formats.graph import Graph
from edgekd.formats.operator_notes import shown_name
from edgekd.formats.tflite import read_tflite
from edgekd.processes import Finished, how_it_ended, run_tool
from edgekd.registry import BACKENDS
from edgekd.store import file_beside
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package, Tool
from edgekd.values.inspection import Forecast
from edgekd.values.tables import Value
from edgekd.values.target import Target

COMPILER = "edgetpu_compiler"
MAPPED = "Mapped to Edge TPU"

_UNITS: Mapping[str, int] = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZES = {
    "cached_bytes": "On-chip memory used for caching model parameters",
    "remaining_bytes": "On-chip memory remaining for caching model parameters",
    "streamed_bytes": "Off-chip memory used for streaming uncached model parameters",
}
_ROW = re.compile(r"^([A-Z][A-Z0-9_]*(?: [\w-]+)?)\s+(\d+)\s{2,}(\S.*?)\s*$", re.MULTILINE)
_VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
_FAILURES = (
    "Compilation failed",
    "Internal compiler error",
    "Invalid model",
    "Model not quantized",
)


class EdgetpuOptions(Value):
    """The Edge TPU compiler. `reserve_bytes` is the on-chip memory that it takes for itself."""

    time_limit_seconds: PositiveFloat = 600.0
    reserve_bytes: int = Field(default=1_153_434, ge=0)  # 1.1 MiB, the least seen in logs
    threads: PositiveInt = 1
    delegate: str = "libedgetpu.so.1"
    delegate_options: dict[str, str] = {}


@BACKENDS.register()
class EdgeTpu(Follower):
    """The Edge TPU compiler, which turns the int8 TFLite file into one for the accelerator."""

    info = BackendInfo(
        title="the Edge TPU",
        files=(
            FileKind(
                format="edgetpu", runtime="edgetpu", suffixes=(".tflite",),
                mark=b"edgetpu-custom-op",
            ),
        ),
        precisions=("int8",),
        follows="tflite",
        options=EdgetpuOptions,
        needs=Needs(
            packages=(
                Package(
                    name="ai-edge-litert", module="ai_edge_litert", purpose="running TFLite files",
                    extra="tflite",
                ),
            ),
            tools=(
                Tool(
                    command=COMPILER, purpose="Edge TPU files",
                    hint="comes from Coral's apt archive",
                ),
            ),
            accelerator="edgetpu",
            activations="int8-affine",
        ),
        stops_at_float=True,
    )  # fmt: skip

    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
        """What the vendor's table says about that file; nothing of a float file is mapped."""
        return _judge(_readable(artifact), target, EdgetpuOptions(**options))

    def follow(
        self,
        artifact: Artifact,
        target: Target,
        options: dict[str, Any],
        folder: Path,
        board: Board | None = None,
    ) -> list[Artifact]:
        """`*_edgetpu.tflite` made by the vendor's compiler, or nothing where it is not on the PATH.

        Float and half-precision files are skipped: the Edge TPU takes only 8 bits.
        """
        compiler = shutil.which(COMPILER)
        if compiler is None or artifact.precision != "int8":
            return []
        settings = EdgetpuOptions(**options)
        graph = _readable(artifact)
        estimated, facts = _judge(graph, target, settings)
        with tempfile.TemporaryDirectory(prefix="edgekd-edgetpu-") as work:
            log, made = _compile(compiler, artifact.path, Path(work), settings.time_limit_seconds)
            path = folder / f"{artifact.path.stem}_edgetpu.tflite"
            with file_beside(path) as beside:
                shutil.copyfile(made, beside)
        placements, measured = read_log(log, graph, estimated)
        compiled = read_tflite(path)
        return [
            artifact.derived(
                path,
                f"compiled by {COMPILER}",
                format="edgetpu",
                runtime="edgetpu",
                placements=placements,
                facts={**facts, **measured, "compiled_ops": len(compiled.ops)},
                versions={**artifact.versions, COMPILER: _version(log)},
                notes=(*artifact.notes, *_notes(placements, measured)),
            )
        ]

    def forecast(self, path: Path, graph: Graph, target: Target) -> Forecast:
        """What the vendor's table says about the operators of a TFLite file."""
        accelerator = target.accelerator("edgetpu")
        if accelerator is None or accelerator.on_chip_bytes is None:
            return Forecast()
        options = EdgetpuOptions(**target.backends.get("edgetpu", {}))
        placements, facts = edgetpu_placements(
            graph, accelerator.on_chip_bytes, options.reserve_bytes
        )
        return Forecast(placements=placements, facts=facts)


def _readable(artifact: Artifact) -> Graph:
    """The graph of a TFLite file that has not been compiled yet."""
    if artifact.format != "tflite":
        raise InputError(
            f"the Edge TPU compiler takes a TFLite file, not {artifact.format}",
            where=str(artifact.path),
        )
    return read_tflite(artifact.path)


def _judge(
    graph: Graph, target: Target, options: EdgetpuOptions
) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
    accelerator = target.accelerator("edgetpu")
    if accelerator is None or accelerator.on_chip_bytes is None:
        raise InputError(
            "no Edge TPU whose on-chip memory is known",
            where=f"target {target.name}",
            allowed='[[accelerators]] kind = "edgetpu" with on_chip_bytes',
        )
    return edgetpu_placements(graph, accelerator.on_chip_bytes, options.reserve_bytes)


def _compile(compiler: str, model: Path, work: Path, limit: float) -> tuple[str, Path]:
    """The compiler's log and the file it made, from a folder of its own."""
    source = work / model.name
    shutil.copyfile(model, source)
    argv = [compiler, "-s", "-o", str(work), str(source)]
    hint = "raise time_limit_seconds in [backends.edgetpu]"
    done = run_tool(argv, limit, COMPILER, str(model), hint=hint, folder=work)
    log = done.log
    made = work / f"{model.stem}_edgetpu.tflite"
    if done.status or not made.is_file() or "Compilation failed" in log:
        raise ToolError(_failure(done), where=str(model))
    written = work / f"{model.stem}_edgetpu.log"
    if not _ROW.search(log) and written.is_file():
        log += written.read_text(encoding="utf-8", errors="replace")
    return log, made


def _failure(done: Finished) -> str:
    """The line of a log that says what went wrong."""
    reason = next((line for line in done.lines if line.startswith(_FAILURES)), done.last_line)
    return f"{COMPILER} failed ({how_it_ended(done.status)}): {reason}"


def read_log(
    log: str, graph: Graph, estimated: tuple[OpPlacement, ...]
) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
    """What the compiler's log says, in the shape of the static check.

    The log counts operators of a kind by status and does not name them. Where a kind has several,
    the mapped ones are taken to be those that the static check maps, then the first of the others.
    Raises `ToolError` if the log's operators are not the file's.
    """
    waiting: dict[str, list[str]] = {}
    for kind, count, status in _ROW.findall(log):
        statuses = waiting.setdefault(kind, [])
        statuses.extend([status] * int(count))
    for statuses in waiting.values():
        statuses.sort(key=lambda status: status != MAPPED)
    order = sorted(range(len(graph.ops)), key=lambda i: estimated[i].placement != "edgetpu")
    placements: dict[int, OpPlacement] = {}
    for index in order:
        op = graph.ops[index]
        statuses = waiting.get(op.op, []) or waiting.get(op.op.partition(" ")[0], [])
        if not statuses:
            raise ToolError(f"{COMPILER}'s log does not mention {op.op} '{op.name}'")
        status = statuses.pop(0)
        mapped = status == MAPPED
        placements[index] = OpPlacement(
            name=shown_name(op.name),
            op=op.op,
            placement="edgetpu" if mapped else "cpu",
            reason="" if mapped else status[:1].lower() + status[1:],
        )
    facts: dict[str, float | str] = {"kind": "measured", **_sizes(log)}
    mapped_ops = sum(1 for one in placements.values() if one.placement == "edgetpu")
    facts["edgetpu_ops"] = mapped_ops
    facts["cpu_ops"] = len(placements) - mapped_ops
    return tuple(placements[index] for index in range(len(graph.ops))), facts


def _sizes(log: str) -> dict[str, float | str]:
    sizes: dict[str, float | str] = {}
    for name, words in _SIZES.items():
        match = re.search(re.escape(words) + r":\s*([\d.]+)\s*([KMG]?i?B)", log)
        if match and match[2] in _UNITS:
            sizes[name] = round(float(match[1]) * _UNITS[match[2]])
    if "cached_bytes" in sizes and "streamed_bytes" in sizes:
        sizes["parameter_bytes"] = float(sizes["cached_bytes"]) + float(sizes["streamed_bytes"])
    return sizes


def _version(log: str) -> str:
    match = _VERSION.search(log)
    return match[1] if match else "unknown"


def _notes(placements: tuple[OpPlacement, ...], facts: Mapping[str, float | str]) -> list[str]:
    notes = []
    left = [one for one in placements if one.placement != "edgetpu"]
    if left:
        notes.append(
            f"{len(left)} of {len(placements)} operators run on the CPU, from {left[0].op} "
            f"'{left[0].name}' on: {left[0].reason}"
        )
    streamed = facts.get("streamed_bytes", 0)
    if streamed:
        notes.append(f"{streamed} bytes of parameters are streamed in every inference")
    return notes
