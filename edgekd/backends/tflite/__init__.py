"""TFLite through litert-torch: fp32, fp16 weights, and full int8 with int8 at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from edgekd.backends import Backend
from edgekd.registry import BACKENDS
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package
from edgekd.values.box_search import BoxSearch
from edgekd.values.tables import Value
from edgekd.values.target import Target

if TYPE_CHECKING:
    import numpy as np

    from edgekd.values.candidate import Candidate
    from edgekd.values.inner_tensor import InnerTensor
    from edgekd.values.tree import Tree


class TfliteOptions(Value):
    """LiteRT on the device. `delegate` is a shared library that runs operators in LiteRT's place,
    with `delegate_options`; `kernels` are the optimized ones (XNNPACK) or the reference ones."""

    threads: PositiveInt = 1
    kernels: Literal["optimized", "reference"] = "optimized"
    delegate: str = ""
    delegate_options: dict[str, str] = {}


@BACKENDS.register()
class Tflite(Backend):
    """TFLite files for LiteRT and microcontrollers: fp32, fp16, full int8."""

    info = BackendInfo(
        title="TFLite",
        files=(FileKind(format="tflite", runtime="litert", suffixes=(".tflite",), plot_mark="s"),),
        precisions=("fp32", "fp16", "int8"),
        options=TfliteOptions,
        finds_boxes=True,
        wide_activations=True,
        wide_cost="LiteRT computes 16 bits in its own kernels, which are slower than XNNPACK's",
        needs=Needs(
            packages=(
                Package(
                    name="litert-torch", module="litert_torch", purpose="the TFLite backend",
                    extra="tflite",
                ),
                Package(
                    name="ai-edge-litert", module="ai_edge_litert", purpose="running TFLite files",
                    extra="tflite",
                ),
            )
        ),
    )  # fmt: skip

    def check(
        self, candidate: Candidate, target: Target, options: dict[str, Any]
    ) -> Sequence[OpPlacement]:
        """Every operator on the CPU; what an accelerator takes is its own backend's to say."""
        from edgekd.quant.support import place

        return place(candidate, target, "cpu", "backends.tflite")

    def prepare(self) -> None:
        """Start to import the converter."""
        from edgekd.backends.tflite.convert import CONVERTER
        from edgekd.processes.forked import prepare

        prepare(CONVERTER)

    def compile(
        self, candidate: Candidate, target: Target, options: dict[str, Any], folder: Path
    ) -> list[Artifact]:
        """One file, `model.tflite`, for a batch of one; images are taken as (1, H, W, C)."""
        from edgekd.backends.tflite.convert import convert_artifact

        placements = self.check(candidate, target, options)
        return [convert_artifact(candidate, target, placements, folder / "model.tflite")]

    def find_boxes(
        self, artifact: Artifact, outputs: Tree, search: BoxSearch, classes: int, path: Path
    ) -> Artifact:
        """The file with the candidates and TFLite_Detection_PostProcess behind the network."""
        from edgekd.backends.tflite.boxes import with_boxes

        return with_boxes(artifact, outputs, search, classes, path)

    def inner_tensors(self, path: Path, inputs: Sequence[np.ndarray]) -> list[InnerTensor]:
        """Every quantized activation, run with TensorFlow's reference kernels."""
        from edgekd.backends.tflite.tensors import quantized_tensors

        return quantized_tensors(path, inputs)
