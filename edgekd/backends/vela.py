"""Vela, Arm's compiler for Ethos-U: from the int8 TFLite file to one with NPU commands inside.

Vela exits with status 0 for a float model although it maps nothing of it, and crashes on a damaged
file, so both are refused before Vela is started. It runs as a process with a time limit. Cycles,
time and memory come from its own model of the NPU: `simulated`, never `measured`.
"""

import csv
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt

from edgekd.backends import Board, Follower
from edgekd.errors import EdgekdError, InputError, ToolError
from edgekd.formats.graph import Graph, Op
from edgekd.formats.operator_notes import shown_name
from edgekd.formats.tflite import read_tflite
from edgekd.processes import Finished, how_it_ended, run_tool
from edgekd.registry import BACKENDS
from edgekd.store import file_beside
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package
from edgekd.values.inspection import Forecast
from edgekd.values.measurement import Measurement
from edgekd.values.tables import Value
from edgekd.values.target import Target

NPU_OP = "CUSTOM ethos-u"
DEVICE = "Vela's model of the NPU"
INTEGERS = ("int8", "uint8", "int16")

# Vela: "Warning (supported operators) operator: MEAN, ofm: 'name'", then the line with its reason.
_WARNING = re.compile(
    r"^Warning \([^)]*\) operator: (\S+), ofm: '(.*)'\s*\nReason: (.+)$", re.MULTILINE
)


class VelaOptions(Value):
    """Vela, the compiler for Ethos-U. `accelerator_config` is the NPU with its MACs per cycle;
    `config` names the file whose sections `system_config` (clock and bandwidths) and `memory_mode`
    (which memory holds what) are. Vela's own defaults for those describe no real system, so they
    have to be given."""

    accelerator_config: Literal[
        "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256",
        "ethos-u65-256", "ethos-u65-512",
        "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048",
    ]  # fmt: skip
    system_config: str
    memory_mode: str
    config: str = "Arm/vela.ini"
    optimise: Literal["Performance", "Size"] = "Performance"
    arena_cache_bytes: PositiveInt | None = None
    time_limit_seconds: PositiveFloat = 600.0


@BACKENDS.register()
class Vela(Follower):
    """Vela, which turns the int8 TFLite file into one for the Ethos-U."""

    info = BackendInfo(
        title="the Ethos-U",
        files=(FileKind(format="vela", runtime="ethos-u"),),
        precisions=("int8", "int16x8", "int8+int16"),
        follows="tflite",
        wide_activations=True,
        tells_costs=True,
        wide_cost="the Ethos-U takes up to twice the cycles for 16 bits",
        options=VelaOptions,
        needs=Needs(
            packages=(
                Package(
                    name="ai-edge-litert", module="ai_edge_litert", purpose="running TFLite files",
                    extra="tflite",
                ),
                Package(
                    name="ethos-u-vela", module="ethosu.vela", purpose="Ethos-U files",
                    extra="ethos",
                ),
            ),
            accelerator="ethos-u",
            activations="int8-affine",
        ),
    )  # fmt: skip

    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
        """What Vela itself maps of that file, and its facts, whose `kind` is `simulated`."""
        _refuse_format(artifact)
        return examine(artifact.path, options)

    def follow(
        self,
        artifact: Artifact,
        target: Target,
        options: dict[str, Any],
        folder: Path,
        board: Board | None = None,
    ) -> list[Artifact]:
        """`*_vela.tflite`; a float file is refused, since the NPU computes in integers only."""
        _refuse_format(artifact)
        path = folder / f"{artifact.path.stem}_vela.tflite"
        with tempfile.TemporaryDirectory(prefix="edgekd-vela-") as work:
            result = _compile(artifact.path, VelaOptions(**options), Path(work))
            with file_beside(path) as beside:
                shutil.copyfile(result.path, beside)
        release = version("ethos-u-vela")
        return [
            artifact.derived(
                path,
                f"compiled by Vela {release}",
                format="vela",
                runtime="ethos-u",
                placements=result.placements,
                # Arm: the NPU's results are those of TFLite's reference kernels, to the bit.
                facts={**artifact.facts, **result.facts, "computes_as": artifact.sha256},
                measurements=result.measurements(),
                versions={**artifact.versions, "ethos-u-vela": release},
                notes=(*artifact.notes, *result.notes(target)),
            )
        ]

    def forecast(self, path: Path, graph: Graph, target: Target) -> Forecast:
        """What Vela maps of a TFLite file, or a note that says why it can't be asked."""
        if NPU_OP in graph.counts:
            note = "Vela made this file: its NPU operators are compiled already"
            return Forecast(notes=(note,))
        missing = self.missing()
        if missing:
            note = f"NPU placement is unknown: {missing[0].message}; {missing[0].hint}"
            return Forecast(notes=(note,))
        try:
            placements, facts = examine(path, target.backends["vela"])
        except EdgekdError as error:
            return Forecast(notes=(f"Vela: {error.message}",))
        return Forecast(placements=placements, facts=facts)


class _Compiled:
    """The result of one run of Vela: a file in its work folder, its summary and its log."""

    def __init__(self, path: Path, source: Graph, log: str, facts: dict[str, float | str]) -> None:
        self.path = path
        self.bytes = path.stat().st_size
        self.placements = placements_of(source, read_tflite(path), log)
        left = sum(1 for one in self.placements if one.placement == "cpu")
        self.facts: dict[str, float | str] = {
            "kind": "simulated",
            **facts,
            "npu_ops": len(self.placements) - left,
            "cpu_ops": left,
        }

    def measurements(self) -> tuple[Measurement, ...]:
        """Latency, if the whole model runs on the NPU, and memory."""
        conditions = {name: str(self.facts[name]) for name in _CONDITIONS}
        conditions["ethos-u-vela"] = version("ethos-u-vela")
        reason = ""
        if self.facts["cpu_ops"]:
            reason = f"{self.facts['cpu_ops']} operators run on the CPU, which Vela does not time"
        times = [
            Measurement(
                metric=f"latency_ms_{quantile}",
                value=None if reason else float(self.facts["npu_ms"]),
                kind="unavailable" if reason else "simulated",
                device=DEVICE,
                reason=reason,
                protocol="" if reason else "Vela's cycle model: a single value without an interval",
                conditions=conditions,
            )
            for quantile in ("p50", "p90", "p99")
        ]
        memory = Measurement(
            metric="memory_bytes",
            value=float(self.facts["arena_bytes"]),
            kind="simulated",
            device=DEVICE,
            protocol=f"Vela's allocation in {self.facts['arena_area']}",
            conditions=conditions,
        )
        return (*times, memory)

    def notes(self, target: Target) -> list[str]:
        """Which operators stay on the CPU, and what does not fit into the target."""
        notes = []
        left = [one for one in self.placements if one.placement == "cpu"]
        if left:
            names = ", ".join(f"{one.op} '{one.name}'" for one in left[:4])
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            why = left[0].reason
            notes.append(
                f"{len(left)} of {len(self.placements)} operators run on the CPU: "
                f"{names}{more} ({why})"
            )
        arena, memory = int(self.facts["arena_bytes"]), target.hardware.memory_bytes
        if arena > memory:
            notes.append(
                f"does not fit: the arena needs {arena:,} bytes of memory, {memory:,} available"
            )
        storage = target.hardware.storage_bytes
        if storage is not None and self.bytes > storage:
            notes.append(
                f"does not fit: the file needs {self.bytes:,} bytes of flash, {storage:,} available"
            )
        return notes


_CONDITIONS = ("accelerator_config", "system_config", "memory_mode")


def examine(
    path: Path, options: Mapping[str, Any]
) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
    """Where Vela puts each operator of an int8 TFLite file, and its facts. Raises as `follow`."""
    with tempfile.TemporaryDirectory(prefix="edgekd-vela-") as work:
        result = _compile(path, VelaOptions(**options), Path(work))
    return result.placements, result.facts


def _refuse_format(artifact: Artifact) -> None:
    if artifact.format != "tflite":
        raise InputError(
            f"Vela takes a TFLite file, not {artifact.format}", where=str(artifact.path)
        )


def _compile(path: Path, options: VelaOptions, work: Path) -> _Compiled:
    """Run Vela in a folder of its own, which then contains the result."""
    graph = read_tflite(path)
    _refuse_float(graph, path)
    source = work / "model.tflite"  # its name is written into the result
    shutil.copyfile(path, source)
    where = str(path)
    hint = "raise time_limit_seconds in [backends.vela]"
    argv = _command(source, options, work)
    done = run_tool(argv, options.time_limit_seconds, "vela", where, hint=hint, folder=work)
    made, summaries = work / "model_vela.tflite", sorted(work.glob("model_summary_*.csv"))
    if done.status or not made.is_file() or len(summaries) != 1:
        raise ToolError(_failure(done), where=where)
    return _Compiled(made, graph, done.log, read_summary(summaries[0], options))


def _refuse_float(graph: Graph, path: Path) -> None:
    computed = [one for one in graph.tensors.values() if one.constant_bytes is None]
    if not any(one.dtype in INTEGERS for one in computed):
        raise InputError(
            f"a float model: the Ethos-U can run none of its {len(graph.ops)} operators",
            where=str(path),
            allowed="activations in int8 or int16",
            hint='add a stage with kind = "quantize", dtype = "int8"',
        )


def _command(source: Path, options: VelaOptions, work: Path) -> list[str]:
    command = [
        sys.executable, "-m", "ethosu.vela",
        "--accelerator-config", options.accelerator_config,
        "--config", options.config,
        "--system-config", options.system_config,
        "--memory-mode", options.memory_mode,
        "--optimise", options.optimise,
        "--show-cpu-operations",
        "--output-dir", str(work),
    ]  # fmt: skip
    if options.arena_cache_bytes is not None:
        command += ["--arena-cache-size", str(options.arena_cache_bytes)]
    return [*command, str(source)]


def _failure(done: Finished) -> str:
    """The line of Vela's output that says what went wrong."""
    reason = next((line for line in reversed(done.lines) if "rror" in line), done.last_line)
    reason = reason.removeprefix("ethosu.vela.errors.").strip("'")
    return f"Vela failed ({how_it_ended(done.status)}): {reason}"


def read_summary(path: Path, options: VelaOptions) -> dict[str, float | str]:
    """The facts of `*_summary_*.csv`: cycles, milliseconds, bytes of each memory.

    Raises `ToolError` for a summary with other columns or for another system than requested.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    try:
        (row,) = rows
        accelerator = row["accelerator_configuration"].lower().replace("_", "-")
        if (accelerator, row["memory_mode"]) != (options.accelerator_config, options.memory_mode):
            raise ValueError(f"it is for {accelerator}, {row['memory_mode']}")
        area = row["feature_map_storage_area"]
        used = {name: round(_number(row[column]) * 1024) for name, column in _AREAS.items()}
        return {
            "accelerator_config": options.accelerator_config,
            "system_config": row["system_config"],
            "memory_mode": row["memory_mode"],
            "npu_cycles": _number(row["cycles_total"]),
            "npu_ms": _number(row["inference_time"]) * 1e3,
            "macs": _number(row["nn_macs"]),
            "arena_bytes": used[area],
            "arena_area": area,
            **{f"{name.lower().replace(' ', '_')}_bytes": size for name, size in used.items()},
            "encoded_weight_bytes": _number(row["total_npu_encoded_weights"]),
        }
    except (KeyError, ValueError) as error:
        raise ToolError(f"Vela's summary is not as expected: {error}", where=str(path)) from None


_AREAS: Mapping[str, str] = {
    "SRAM": "sram_memory_used",
    "DRAM": "dram_memory_used",
    "On-chip Flash": "on_chip_flash_memory_used",
    "Off-chip Flash": "off_chip_flash_memory_used",
}


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is not a number")
    return value


def placements_of(source: Graph, compiled: Graph, log: str) -> tuple[OpPlacement, ...]:
    """Where each operator of the source runs: on the CPU if the compiled file still has it.

    Vela replaces each run of operators that it maps with one operator, and keeps the others with
    the names of their outputs. The reasons come from its log.
    """
    kept = [(op.op, op.name) for op in compiled.ops if op.op != NPU_OP]
    reasons = {(op, name): " ".join(why.split()) for op, name, why in _WARNING.findall(log)}
    return tuple(_placed(op, kept, reasons) for op in source.ops)


def _placed(
    op: Op, kept: list[tuple[str, str]], reasons: Mapping[tuple[str, str], str]
) -> OpPlacement:
    if (op.op, op.name) not in kept:
        return OpPlacement(name=shown_name(op.name), op=op.op, placement="npu")
    kept.remove((op.op, op.name))
    reason = reasons.get((op.op, op.name), "Vela left it on the CPU without giving a reason")
    return OpPlacement(name=shown_name(op.name), op=op.op, placement="cpu", reason=reason)
