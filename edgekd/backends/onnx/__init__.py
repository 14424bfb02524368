"""ONNX for ONNX Runtime and TensorRT: fp32, fp16, int8 as quantize/dequantize pairs, and weights of
a few bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from edgekd.backends import Backend
from edgekd.registry import BACKENDS
from edgekd.values.artifact import Artifact, OpPlacement, Placement
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package
from edgekd.values.box_search import BoxSearch
from edgekd.values.tables import Value
from edgekd.values.target import Target

if TYPE_CHECKING:
    import numpy as np

    from edgekd.values.candidate import Candidate
    from edgekd.values.inner_tensor import InnerTensor
    from edgekd.values.tree import Tree


class OnnxOptions(Value):
    """ONNX Runtime on the device. `provider` is cpu, cuda or tensorrt."""

    threads: PositiveInt = 1
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"


@BACKENDS.register()
class Onnx(Backend):
    """ONNX files for ONNX Runtime: fp32, fp16, int8 QDQ, and narrow weights down to two bits."""

    info = BackendInfo(
        title="ONNX",
        files=(
            FileKind(format="onnx", runtime="onnxruntime", suffixes=(".onnx",), plot_mark="o"),
        ),
        precisions=(
            "fp32", "fp16", "int8", "bf16", "int4", "ternary", "binary", "clustered", "mixed",
        ),
        options=OnnxOptions,
        leaves_open=True,
        finds_boxes=True,
        wide_activations=True,
        wide_cost="ONNX Runtime computes 16 bits in float",
        needs=Needs(
            packages=(
                Package(name="onnx", module="onnx", purpose="the ONNX backend", extra="onnx"),
                Package(
                    name="onnxscript", module="onnxscript", purpose="exporting ONNX files",
                    extra="onnx",
                ),
                Package(
                    name="onnxruntime", module="onnxruntime", purpose="running ONNX files",
                    extra="onnx",
                ),
            )
        ),
    )  # fmt: skip

    def check(
        self, candidate: Candidate, target: Target, options: dict[str, Any]
    ) -> Sequence[OpPlacement]:
        """Where each operator runs: on the provider's unit, or on the CPU beside it."""
        from edgekd.quant.support import place

        unit: Placement = "gpu" if options.get("provider", "cpu") in ("cuda", "tensorrt") else "cpu"
        return place(candidate, target, unit, "backends.onnx")

    def compile(
        self, candidate: Candidate, target: Target, options: dict[str, Any], folder: Path
    ) -> list[Artifact]:
        """One file, `model.onnx`, with a free batch size wherever the model has one."""
        from edgekd.backends.onnx.export import export_artifact

        placements = self.check(candidate, target, options)
        return [export_artifact(candidate, target, placements, folder / "model.onnx")]

    def find_boxes(
        self, artifact: Artifact, outputs: Tree, search: BoxSearch, classes: int, path: Path
    ) -> Artifact:
        """The file with the candidates and NonMaxSuppression behind the network."""
        from edgekd.backends.onnx.boxes import with_boxes

        return with_boxes(artifact, outputs, search, classes, path)

    def inner_tensors(self, path: Path, inputs: Sequence[np.ndarray]) -> list[InnerTensor]:
        """The output of each QuantizeLinear."""
        from edgekd.backends.onnx.tensors import quantized_tensors

        return quantized_tensors(path, inputs)
