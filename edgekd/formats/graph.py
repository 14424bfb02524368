"""The content of a model file, independent of its format: operators, tensors and constants."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError
from edgekd.store import read_errors
from edgekd.values.artifact import TensorInfo

BITS: Mapping[str, int] = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "float8": 8,
    "int64": 64, "int32": 32, "int16": 16, "int8": 8, "int4": 4, "int2": 2,
    "uint64": 64, "uint32": 32, "uint16": 16, "uint8": 8, "uint4": 4, "uint2": 2,
    "bool": 8, "complex64": 64, "complex128": 128,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. `shape` is None if the file does not give it, and -1 stands for an open
    dimension.

    `constant_bytes` is its size in the file, None for computed tensors. `values` are the constant's
    numbers if they were decoded. `scales` and `zero_points` are those of a quantized tensor, one or
    one per channel along `axis`.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    constant_bytes: int | None = None
    values: np.ndarray | None = None
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0

    @property
    def bytes(self) -> int | None:
        """Its size in memory, None if the shape is open or the data type has no fixed size."""
        bits = BITS.get(self.dtype)
        if self.shape is None or bits is None or any(size < 0 for size in self.shape):
            return None
        return (math.prod(self.shape) * bits + 7) // 8


def info_of(tensor: Tensor) -> TensorInfo:
    """An input or output as an artifact's `TensorInfo`; scale and zero point only if there is just
    one."""
    return TensorInfo(
        name=tensor.name,
        shape=tensor.shape or (),
        dtype=tensor.dtype,
        scale=tensor.scales[0] if len(tensor.scales) == 1 else None,
        zero_point=tensor.zero_points[0] if len(tensor.zero_points) == 1 else None,
    )


@dataclass(frozen=True)
class Op:
    """One operator; `inputs` and `outputs` are keys of `Graph.tensors`, "" for an omitted one."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """One model, with operators in order of execution."""

    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        return dict(Counter(op.op for op in self.ops).most_common())

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all constants, wherever the file stores them."""
        return sum(tensor.constant_bytes or 0 for tensor in self.tensors.values())


def lifetimes(graph: Graph) -> dict[str, tuple[int, int]]:
    """The first and last step at which each computed tensor is needed: from the operator that
    computes it (inputs: from the start) to its last reader (outputs: to the end)."""
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.inputs, 0)
    for step, op in enumerate(graph.ops):
        for key in op.outputs:
            if key:
                first.setdefault(key, step)
                last[key] = step
        for key in op.inputs:
            if key in first:
                last[key] = step
    for key in graph.outputs:
        if key in first:
            last[key] = len(graph.ops)
    return {key: (begin, last[key]) for key, begin in first.items()}


def live_peak(graph: Graph) -> tuple[int | None, str]:
    """The most bytes of computed tensors alive at once, or None with the reason.

    An allocator that packs perfectly and never computes in place needs exactly this much, so a real
    arena can be smaller (in place) or larger (fragmentation).
    """
    change = [0] * (len(graph.ops) + 2)
    for key, (begin, end) in lifetimes(graph).items():
        tensor = graph.tensors.get(key)
        size = tensor.bytes if tensor is not None else None
        if size is None:
            return None, f"the file does not give the size of tensor '{key}'"
        change[begin] += size
        change[end + 1] -= size
    peak = live = 0
    for delta in change:
        live += delta
        peak = max(peak, live)
    return peak, ""


def float_islands(graph: Graph) -> tuple[Op, ...]:
    """Operators of a quantized TFLite file that compute in float.

    QUANTIZE and DEQUANTIZE are the borders of an island and do not count. A file without any
    integer activation is a float model and has no islands.
    """
    computed = {
        key: tensor.dtype for key, tensor in graph.tensors.items() if tensor.constant_bytes is None
    }
    if not {"int8", "uint8", "int16"}.intersection(computed.values()):
        return ()
    return tuple(
        op
        for op in graph.ops
        if op.op not in ("QUANTIZE", "DEQUANTIZE")
        and any(computed.get(key) in ("float32", "float16") for key in (*op.inputs, *op.outputs))
    )


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises one `InputError` if it is missing, empty or unreadable."""
    with read_errors(path, "a model file"):
        content = path.read_bytes()
    if not content:
        raise InputError("the file is empty", where=str(path))
    return content
