"""NVIDIA TensorRT: an engine is built on the board itself, from the ONNX file, by a script or here.

An engine fits one version of TensorRT on one kind of GPU, so it can't be made elsewhere. What this
backend always makes is `build_engine.sh` beside the ONNX file; given a `Board` that has `trtexec`
it also runs the build there and brings the engine back. Quantization is explicit: the QDQ pairs of
the ONNX file decide, there is no calibration.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.backends import Board, Follower
from edgekd.backends.tensorrt.placement import is_bias, quantization_faults, quantized_ops
from edgekd.errors import InputError, ToolError
from edgekd.formats.graph import Graph
from edgekd.formats.onnx_file import read_onnx
from edgekd.registry import BACKENDS
from edgekd.store import file_beside, write_beside
from edgekd.values.artifact import Artifact, OpPlacement, sha256_of
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package, Tool
from edgekd.values.inspection import Forecast
from edgekd.values.tables import Value
from edgekd.values.target import Target

SCRIPT = "build_engine.sh"
SHOWN_FAULTS = 3
FORECAST_FAULTS = 8

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_LATENCY = re.compile(
    rf"(?<!Host )Latency: min = {_NUMBER} ms, max = {_NUMBER} ms, mean = {_NUMBER} ms, "
    rf"median = {_NUMBER} ms"
)
_GPU = re.compile(rf"GPU Compute Time: .*?median = {_NUMBER} ms")
_THROUGHPUT = re.compile(rf"Throughput: {_NUMBER} qps")
_VERSION = re.compile(r"TensorRT\.trtexec \[TensorRT v(\d+)\]|TensorRT version: ([\d.]+)")


class TensorrtOptions(Value):
    """How the engine is built on the board. `workspace_mib` bounds the builder's scratch memory;
    `cudart` is the CUDA runtime library with which the board's agent runs the engine."""

    builder_optimization_level: int = Field(default=3, ge=0, le=5)
    workspace_mib: PositiveInt | None = None
    time_limit_seconds: PositiveFloat = 1800.0
    trtexec: str = "/usr/src/tensorrt/bin/trtexec"  # where JetPack installs it
    cudart: str = ""


@BACKENDS.register()
class TensorRt(Follower):
    """TensorRT's builder, which turns the ONNX file into an engine on the board."""

    info = BackendInfo(
        title="TensorRT",
        files=(
            FileKind(
                format="tensorrt-onnx", runtime="tensorrt",
                not_run="it is the source of an engine, which is built on the board",
            ),
            FileKind(format="tensorrt", runtime="tensorrt", suffixes=(".engine", ".plan")),
        ),
        precisions=("fp32", "fp16", "int8", "bf16", "int4", "clustered", "mixed"),
        follows="onnx",
        options=TensorrtOptions,
        needs=Needs(
            packages=(
                Package(name="onnx", module="onnx", purpose="the ONNX backend", extra="onnx"),
            ),
            tools=(
                Tool(
                    command="trtexec", purpose="TensorRT engines, on the board",
                    hint="comes with JetPack",
                ),
            ),
            accelerator="cuda",
            activations="int8-symmetric",
        ),
    )  # fmt: skip

    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
        """Refuses a quantized file that breaks a rule of explicit quantization, by the node.

        Which layer runs in which precision only the builder knows, so the placements say no more
        than that the GPU runs them.
        """
        graph = read_onnx(artifact.path)
        biases = sum(1 for op in graph.ops if op.op == "DequantizeLinear" and is_bias(op, graph))
        if artifact.precision == "int8":
            _refuse(graph, artifact.path)
        placements = tuple(OpPlacement(name=op.name, op=op.op, placement="gpu") for op in graph.ops)
        facts: dict[str, float | str] = {
            "kind": "estimated",
            "int8_ops": quantized_ops(graph),
            "int32_biases": biases,
        }
        return placements, facts

    def follow(
        self,
        artifact: Artifact,
        target: Target,
        options: dict[str, Any],
        folder: Path,
        board: Board | None = None,
    ) -> list[Artifact]:
        """The ONNX file for TensorRT's parser, beside it the script that builds its engine, and the
        engine itself if a board with trtexec is given."""
        settings = TensorrtOptions(**options)
        placements, facts = self.check_artifact(artifact, target, options)
        model = _with_float_biases(artifact, folder)
        engine = f"{artifact.path.stem}.engine"
        command = build_arguments(model.name, engine, artifact.precision, settings)
        script = _write_script(folder / SCRIPT, command, settings)
        prepared = artifact.derived(
            model,
            f"prepared for TensorRT as {model.name}",
            format="tensorrt-onnx",
            runtime="tensorrt",
            placements=placements,
            facts=facts,
            companions={script.name: sha256_of(script)},
            notes=(_how_to(model),),
        )
        trtexec = _find_trtexec(board, settings) if board is not None else ""
        if board is None or not trtexec:
            return [prepared]
        log, layers = _build(board, trtexec, model, folder / engine, artifact, settings)
        built = artifact.derived(
            folder / engine,
            f"prepared for TensorRT as {engine}",
            format="tensorrt",
            runtime="tensorrt",
            placements=placements,
            facts={**facts, **read_log(log), **layer_precisions(layers)},
            versions={**artifact.versions, "tensorrt": _version(log)},
        )
        return [prepared, built]

    def forecast(self, path: Path, graph: Graph, target: Target) -> Forecast:
        """Which rules of explicit quantization a quantized ONNX file breaks."""
        if "QuantizeLinear" not in graph.counts:
            return Forecast()
        faults = quantization_faults(graph)[:FORECAST_FAULTS]
        return Forecast(
            facts={"int8_ops": quantized_ops(graph), "kind": "estimated"},
            notes=tuple(f"TensorRT: {fault}" for fault in faults),
        )


def _refuse(graph: Graph, path: Path) -> None:
    faults = [fault for fault in quantization_faults(graph) if "int32 bias" not in fault]
    if not quantized_ops(graph):
        faults.append("no convolution or matrix product has both inputs quantized")
    if faults:
        more = len(faults) - SHOWN_FAULTS
        shown = "; ".join(faults[:SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"TensorRT's explicit quantization refuses it: {shown}",
            where=str(path),
            allowed="int8 with all zero points 0, weights scaled along their output channels",
            hint='set activations = "int8-symmetric" in the target\'s [quantization]',
        )


def _with_float_biases(artifact: Artifact, folder: Path) -> Path:
    """The ONNX file that TensorRT's parser reads: stored int32 biases become float again.

    bias = int32 * scale is what DequantizeLinear would have computed, so nothing is lost.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(artifact.path))
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    for node in list(graph.node):
        source = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None or source.data_type != onnx.TensorProto.INT32:
            continue
        scale = constants[node.input[1]]
        value = numpy_helper.to_array(source) * numpy_helper.to_array(scale).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    _lower_opset(model)
    used = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
    for one in list(graph.initializer):
        if one.name not in used:
            graph.initializer.remove(one)
    path = folder / f"{artifact.path.stem}_tensorrt.onnx"
    write_beside(path, model.SerializeToString(deterministic=True))
    return path


def _lower_opset(model: Any) -> None:
    """Say opset 20 where the file says 21 and uses nothing of it.

    The parser of TensorRT 10.3, which JetPack 6 has, stops at 20 (unverified on a board). What 21
    added to the operators that 20 has are 4-bit types, and block_size and output_dtype of Q and DQ.
    """
    new = {"block_size", "output_dtype"}
    uses = any(one.name in new and one.i for node in model.graph.node for one in node.attribute)
    four_bits = any("INT4" in _type_name(one.data_type) for one in model.graph.initializer)
    if uses or four_bits:
        return
    for one in model.opset_import:
        if one.domain in ("", "ai.onnx") and one.version == 21:
            one.version = 20
    for node in model.graph.node:
        kept = [one for one in node.attribute if one.name not in new]
        if len(kept) != len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)


def _type_name(code: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(code))


def build_arguments(
    model: str, engine: str, precision: str, options: TensorrtOptions, folder: str = "."
) -> tuple[str, ...]:
    """trtexec's arguments, the same for the script and for the build through the tool.

    Flags as in trtexec's help of TensorRT 8.6 and 10 (samples/common/sampleOptions.cpp):
    `--skipInference` took the place of `--buildOnly` in 8.6. With QDQ pairs `--int8` only allows
    integer kernels; `--fp16` lets the layers between them run in half precision.
    """
    arguments = [
        f"--onnx={folder}/{model}",
        f"--saveEngine={folder}/{engine}",
        f"--timingCacheFile={folder}/timing.cache",
        f"--builderOptimizationLevel={options.builder_optimization_level}",
        "--profilingVerbosity=detailed",
        f"--exportLayerInfo={folder}/layers.json",
    ]
    if precision == "int8":
        arguments += ["--int8", "--fp16"]
    elif precision == "fp16":
        arguments += ["--fp16"]
    if options.workspace_mib is not None:
        arguments.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    return tuple(arguments)


def _write_script(path: Path, arguments: Sequence[str], options: TensorrtOptions) -> Path:
    """A POSIX script that builds the engine in its own folder; same input, same bytes."""
    quoted = " \\\n    ".join(shlex.quote(one) for one in (*arguments, "--skipInference"))
    text = f"""#!/bin/sh
# Builds the TensorRT engine on the board that runs it, from the ONNX file beside this script.
set -eu
cd -- "$(dirname -- "$0")"
trtexec=${{TRTEXEC:-$(command -v trtexec || echo {shlex.quote(options.trtexec)})}}
if ! [ -x "$trtexec" ]; then
    echo "error: no trtexec: install libnvinfer-bin, or set TRTEXEC" >&2
    exit 3
fi
exec "$trtexec" \\
    {quoted}
"""
    with file_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o755)
    return path


def _find_trtexec(board: Board, options: TensorrtOptions) -> str:
    """The path of trtexec on the board, or "": the PATH first, then NVIDIA's own folder."""
    quoted = shlex.quote(options.trtexec)
    probe = f"command -v trtexec || {{ [ -x {quoted} ] && echo {quoted}; }}"
    code, out, _ = board.execute(["sh", "-c", probe], 30.0)
    lines = out.strip().splitlines()
    return lines[0] if code == 0 and lines else ""


def _build(
    board: Board,
    trtexec: str,
    model: Path,
    engine: Path,
    artifact: Artifact,
    options: TensorrtOptions,
) -> tuple[str, str]:
    """Build on the board and bring the engine here; the log, and the layers as JSON."""
    place, _, name = board.send(model).rpartition("/")
    place = place or "."
    partial = engine.with_name(f".{engine.name}.partial")
    remote = f"{place}/{partial.name}"
    arguments = build_arguments(name, partial.name, artifact.precision, options, place)
    code, out, err = board.execute([trtexec, *arguments], options.time_limit_seconds)
    log = out + err
    if code or "&&&& FAILED" in log:
        board.execute(["rm", "-f", remote], 60.0)
        raise _failure(code, log, model, options.time_limit_seconds)
    try:
        board.fetch(remote, partial)
        partial.replace(engine)
    except OSError as error:
        raise ToolError(f"trtexec left no engine: {error}", where=str(model)) from None
    _, layers, _ = board.execute(["cat", f"{place}/layers.json"], 60.0)
    return log, layers


def _failure(code: int, log: str, model: Path, limit: float) -> ToolError:
    if code == 124:
        return ToolError(
            f"trtexec did not end within {limit:g} s",
            where=str(model),
            hint="raise time_limit_seconds in [backends.tensorrt]",
        )
    return ToolError(f"trtexec failed (exit status {code}): {_told(log)}", where=str(model))


def _told(log: str) -> str:
    """The first error line of trtexec's log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    error = next((line for line in lines if "[E]" in line), "")
    return error.partition("[E]")[2].strip() or (lines[-1] if lines else "it said nothing")


def read_log(log: str) -> dict[str, float | str]:
    """Throughput and latency as trtexec printed them; what it did not print is left out.

    They come from random inputs with queries enqueued ahead, so they are facts of the build and no
    measurement that a budget is held against.
    """
    facts: dict[str, float | str] = {}
    throughput = _THROUGHPUT.search(log)
    if throughput:
        facts["trtexec_queries_per_second"] = float(throughput[1])
    latency = _LATENCY.search(log)
    if latency:
        facts["trtexec_latency_ms_min"] = float(latency[1])
        facts["trtexec_latency_ms_max"] = float(latency[2])
        facts["trtexec_latency_ms_mean"] = float(latency[3])
        facts["trtexec_latency_ms_p50"] = float(latency[4])
    gpu = _GPU.search(log)
    if gpu:
        facts["trtexec_gpu_ms_p50"] = float(gpu[1])
    return facts


def layer_precisions(text: str) -> dict[str, float | str]:
    """How many layers write which data type, from the JSON of `--exportLayerInfo`.

    TensorRT 8 says "Row major linear FP16 format" or "... Int8 format", TensorRT 10 "Half", "Int8".
    """
    try:
        layers = json.loads(text)["Layers"]
        formats = [
            str(layer["Outputs"][0]["Format/Datatype"]).lower()
            for layer in layers
            if isinstance(layer, dict) and layer.get("Outputs")
        ]
    except (ValueError, KeyError, TypeError, IndexError):
        return {}
    counts: dict[str, float | str] = {"engine_layers": len(formats)}
    for name, words in (
        ("int8", ("int8",)),
        ("fp16", ("fp16", "half")),
        ("fp32", ("fp32", "float")),
    ):
        found = sum(1 for one in formats if any(word in one for word in words))
        if found:
            counts[f"engine_layers_{name}"] = found
    return counts


def _version(log: str) -> str:
    found = _VERSION.search(log)
    return (found[1] or found[2]) if found else "unknown"


def _how_to(model: Path) -> str:
    return f"copy {SCRIPT} and {model.name} to the board and run the script there"
