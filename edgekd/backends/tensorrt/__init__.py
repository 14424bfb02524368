"""NVIDIA TensorRT: an engine is built on the board itself, from the ONNX file.

An engine fits one version of TensorRT on one kind of GPU, so it can't be made elsewhere. What this
backend always makes is `build_engine.sh` beside the ONNX file; given a `Board` that has `trtexec`
it also runs the build there and brings the engine back. Quantization is explicit: the QDQ pairs of
the ONNX file decide, there is no calibration.
"""

from pathlib import Path
from typing import Any

from edgekd.backends import Board, Follower
from edgekd.backends.tensorrt.build import build_engine, find_trtexec, write_script
from edgekd.backends.tensorrt.log import layer_precisions, read_log, trtexec_version
from edgekd.backends.tensorrt.options import TensorrtOptions
from edgekd.backends.tensorrt.placement import is_bias, quantization_faults, quantized_ops
from edgekd.backends.tensorrt.prepare import prepared_model
from edgekd.errors import InputError
from edgekd.formats.graph import Graph
from edgekd.formats.onnx_file import read_onnx
from edgekd.registry import BACKENDS
from edgekd.values.artifact import Artifact, OpPlacement, sha256_of
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package, Tool
from edgekd.values.inspection import Forecast
from edgekd.values.target import Target

SHOWN_FAULTS = 3
FORECAST_FAULTS = 8


@BACKENDS.register()
class TensorRt(Follower):
    """TensorRT's builder, which turns the ONNX file into an engine on the board."""

    info = BackendInfo(
        title="TensorRT",
        files=(
            FileKind(
                format="tensorrt-onnx", runtime="tensorrt",
                not_run="it is the source of an engine that is built on the board",
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

        Only the builder knows which layer runs in which precision, so the placements merely say
        that the GPU runs them.
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
        model = prepared_model(artifact, folder)
        engine = f"{artifact.path.stem}.engine"
        script = write_script(folder, model.name, engine, artifact.precision, settings)
        prepared = artifact.derived(
            model,
            f"prepared for TensorRT as {model.name}",
            format="tensorrt-onnx",
            runtime="tensorrt",
            placements=placements,
            facts=facts,
            companions={script.name: sha256_of(script)},
            notes=(_how_to(model, script),),
        )
        trtexec = find_trtexec(board, settings) if board is not None else ""
        if board is None or not trtexec:
            return [prepared]
        log, layers = build_engine(board, trtexec, model, folder / engine, artifact, settings)
        built = artifact.derived(
            folder / engine,
            f"prepared for TensorRT as {engine}",
            format="tensorrt",
            runtime="tensorrt",
            placements=placements,
            facts={**facts, **read_log(log), **layer_precisions(layers)},
            versions={**artifact.versions, "tensorrt": trtexec_version(log)},
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


def _how_to(model: Path, script: Path) -> str:
    return f"copy {script.name} and {model.name} to the board and run the script there"
