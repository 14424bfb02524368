"""A compiled file, its lineage and what is known about it without running it."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from edgekd.values.measurement import Measurement
from edgekd.values.tables import Value

Precision = Literal[
    "fp32", "fp16", "int8", "int16x8", "int8+int16",
    "bf16", "int4", "ternary", "binary", "clustered", "mixed",
]  # fmt: skip
"""How weights are stored; all but the first five have float activations and narrow weights,
"mixed" ones of several widths. "int16x8" is TFLite's name for activations of 16 bits and weights of
eight; in "int8+int16" some layers have activations of 16 bits, the others of eight."""

IN_INTEGERS: frozenset[Precision] = frozenset({"int8", "int16x8", "int8+int16"})
"""Precisions in which activations are integers, too."""

Placement = Literal["cpu", "gpu", "edgetpu", "npu", "unsupported"]


class OpPlacement(Value):
    """Where one operator of the model will run, and why not on the accelerator if it will not."""

    name: str
    op: str
    placement: Placement
    reason: str = ""


class TensorInfo(Value):
    """One input or output of an artifact; `scale` and `zero_point` are set when it is quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def __str__(self) -> str:
        """Such as "ids: int64 ?x128", "?" for an open size."""
        shape = "x".join("?" if size < 0 else str(size) for size in self.shape) or "scalar"
        grid = (
            "" if self.scale is None else f", scale {self.scale:.6g}, zero point {self.zero_point}"
        )
        return f"{self.name}: {self.dtype} {shape}{grid}"


class Artifact(Value):
    """One file that a runtime can load. `runtime` is the agent's name for that runtime:
    onnxruntime, litert, tvm, edgetpu, tensorrt. `notes` name what the user should know: float
    islands, leftover transposes, uncovered kernels. `companions` are files that lie beside it and
    belong to it, by name with their SHA-256. `measurements` are what the tool that made it says of
    its cost; they stand in the report where nothing was measured on the device itself.
    """

    path: Path
    format: str
    runtime: str
    precision: Precision
    target: str
    sha256: str
    bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    placements: tuple[OpPlacement, ...] = ()
    versions: dict[str, str] = {}
    lineage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: dict[str, float | str] = {}
    companions: dict[str, str] = {}
    measurements: tuple[Measurement, ...] = ()

    def derived(self, path: Path, step: str = "", **changes: Any) -> "Artifact":
        """The artifact of a file derived from this one: path, hash and size are those of `path`,
        its lineage ends with `step` if there is one, and `changes` replace fields."""
        own = {"path": path, "sha256": sha256_of(path), "bytes": path.stat().st_size}
        lineage = (*self.lineage, step) if step else self.lineage
        return Artifact.model_validate({**dict(self), **own, "lineage": lineage, **changes})


BOXES = "boxes"
"""The fact that says how many boxes of an image a file finds by itself."""

IN_FLOAT = "operators_in_float"


def in_float_fact(count: int) -> dict[str, float | str]:
    """The fact that an integer file computes that many operators in float; none if it is 0."""
    return {IN_FLOAT: count} if count else {}


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
