"""What each operator of a file costs on a device, beside what it does: the rows of the tables from
which `edgekd.measure.cost_model` predicts other files.
"""

import math
from collections.abc import Mapping
from typing import Literal

from edgekd.devices.replies import Profiled
from edgekd.formats.graph import BITS, Graph, Op, Tensor
from edgekd.formats.macs import operator_macs
from edgekd.measure.layer_times import kind_of_operator, operator_places, typical_values
from edgekd.values.tables import Value

OPEN = 1
"""What a size counts as that the file leaves open."""

CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
"""ONNX's, with weights (out, in / groups, height, width)."""

MOST_FUSED = 6
"""How many operators a runtime fuses at most into the first."""

OF_TFLITE = ("CONV_2D", "DEPTHWISE_CONV_2D")
"""TFLite's, with weights (out, height, width, in) and (1, height, width, out)."""


Unit = Literal["us", "instructions"]


class Operator(Value):
    """What one operator of a file does: its kind in its format's words, multiply-accumulates,
    bytes of computed tensors read and written, bytes of constants, and of a convolution the
    kernel's area, stride, groups, channels (in, out) and positions of the output."""

    kind: str
    macs: int
    read: int
    written: int
    constant: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    channels: int = 1
    filters: int = 1
    positions: int = 1


class MeasuredFile(Value):
    """A file's operators with what each cost in `unit`, those that the runtime fused into another
    0; what the runtime added in between; and one inference without recording."""

    sha256: str
    operators: tuple[Operator, ...]
    costs: tuple[float, ...]
    added: float
    whole: float
    unit: Unit = "us"


def operators_of(graph: Graph) -> tuple[Operator, ...]:
    """The operators of a file in order of execution."""
    stored = _stored(graph)
    return tuple(_operator(graph, op, stored) for op in graph.ops)


def measured_file(
    sha256: str, graph: Graph, profiled: Profiled, runtime: str, whole: float | None = None
) -> MeasuredFile:
    """A file's operators with their costs in a profile. Without `whole`, as where instructions are
    counted, an inference costs the sum of its operators."""
    places = operator_places(profiled.operators, graph, runtime)
    writers = {key: place for place, op in enumerate(graph.ops) for key in op.outputs}
    costs = [0.0] * len(graph.ops)
    added = 0.0
    for place, timed, value in zip(
        places, profiled.operators, typical_values(profiled), strict=True
    ):
        if place is None:
            added += value
        else:
            costs[_first_fused(graph, writers, place, timed.op)] += value
    return MeasuredFile(
        sha256=sha256,
        operators=operators_of(graph),
        costs=tuple(costs),
        added=added,
        whole=sum(costs) + added if whole is None else whole,
        unit="us" if profiled.unit == "ns" else "instructions",
    )


def _first_fused(graph: Graph, writers: Mapping[str, int], place: int, kind: str) -> int:
    """The operator of a kind before `place` that a runtime fused with what follows and named after
    that: a convolution with its activation; `place` itself if there is none."""
    wanted, here = kind_of_operator(kind), place
    for _ in range(MOST_FUSED):
        op = graph.ops[here]
        if kind_of_operator(op.op) == wanted:
            return here
        before = [writers[key] for key in op.inputs if key in writers]
        if not before:
            break
        here = max(before)
    return place


def _operator(graph: Graph, op: Op, stored: Mapping[str, str]) -> Operator:
    inputs = [_tensor(graph, stored, key) for key in op.inputs if key in graph.tensors]
    outputs = [graph.tensors[key] for key in op.outputs if key in graph.tensors]
    constants = [tensor for tensor in inputs if tensor.constant_bytes is not None]
    computed = [tensor for tensor in inputs if tensor.constant_bytes is None]
    weights = max((tensor.shape or () for tensor in constants), key=math.prod, default=())
    shape = _closed(outputs[0]) if outputs else ()
    positions = math.prod(shape[:-1])
    own: dict[str, int] = {
        "channels": weights[-1] if weights else 1, "filters": shape[-1] if shape else 1
    }  # fmt: skip
    if op.op in CONVOLUTIONS and len(weights) == 4:
        positions = math.prod(shape) // max(1, weights[0])
        own = {
            "kernel": math.prod(weights[2:]), "groups": int(op.attributes.get("group", 1)),
            "channels": weights[1], "filters": weights[0], "stride": _stride(op),
        }  # fmt: skip
    if op.op in OF_TFLITE and len(weights) == 4:
        deep = op.op == "DEPTHWISE_CONV_2D"
        own = {
            "kernel": math.prod(weights[1:3]), "groups": weights[3] if deep else 1,
            "channels": 1 if deep else weights[3], "filters": weights[3] if deep else weights[0],
            "stride": _stride(op),
        }  # fmt: skip
    return Operator(
        kind=op.op,
        macs=operator_macs(graph, op) or 0,
        read=sum(map(_bytes, computed)),
        written=sum(map(_bytes, outputs)),
        constant=sum(tensor.constant_bytes or 0 for tensor in constants),
        positions=positions,
        **own,
    )


def _stride(op: Op) -> int:
    """The larger of a convolution's strides."""
    strides = op.attributes.get("strides", [op.attributes.get("StrideH", 1)])
    return max(map(int, strides), default=1)


def _tensor(graph: Graph, stored: Mapping[str, str], key: str) -> Tensor:
    """The tensor that is read, which lies in memory as integers if it is only dequantized."""
    return graph.tensors[stored.get(key, key)]


def _stored(graph: Graph) -> dict[str, str]:
    """What each dequantized tensor is stored as."""
    return {
        op.outputs[0]: op.inputs[0]
        for op in graph.ops
        if op.op in ("DequantizeLinear", "DEQUANTIZE")
    }


def _closed(tensor: Tensor) -> tuple[int, ...]:
    return tuple(OPEN if size < 0 else size for size in tensor.shape or ())


def _bytes(tensor: Tensor) -> int:
    return (math.prod(_closed(tensor)) * BITS.get(tensor.dtype, 8) + 7) // 8
