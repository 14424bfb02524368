"""What each operator of a file costs on a device, beside what it does: the rows of the tables from
which `edgekd.measure.cost_model` predicts other files.
"""

import math
from collections.abc import Collection, Mapping
from typing import Literal

from edgekd.devices.replies import Profiled
from edgekd.formats.graph import BITS, Graph, Op, Tensor
from edgekd.formats.macs import operator_macs
from edgekd.measure.cost_windows import padders_of, window_of
from edgekd.measure.layer_times import (
    kind_of_operator,
    operator_places,
    pointwise,
    typical_values,
)
from edgekd.values.tables import Value

OPEN = 1
"""What a size counts as that the file leaves open."""

MOST_FUSED = 6
"""How many operators a runtime fuses at most into the first."""

Unit = Literal["us", "instructions"]


class Operator(Value):
    """What one operator of a file does: its kind in its format's words, multiply-accumulates,
    bytes of computed tensors read and written, and bytes of constants; `filters` and `positions`
    are the innermost size of its output and all others. Of a convolution there are the kernel's
    area, stride, groups, channels of input and output, positions and rows of the output, and how
    many taps fall into the image at all positions."""

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
    rows: int = 1
    taps: int = 0


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
    stored, padders = _stored(graph), padders_of(graph)
    return tuple(_operator(graph, op, stored, padders) for op in graph.ops)


def measured_file(
    sha256: str, graph: Graph, profiled: Profiled, runtime: str, whole: float | None = None
) -> MeasuredFile:
    """A file's operators with their costs in a profile. Without `whole`, as where instructions are
    counted, an inference costs the sum of its operators."""
    places = operator_places(profiled.operators, graph, runtime)
    writers = {key: place for place, op in enumerate(graph.ops) for key in op.outputs}
    products = pointwise(graph)
    costs = [0.0] * len(graph.ops)
    added = 0.0
    for place, timed, value in zip(
        places, profiled.operators, typical_values(profiled), strict=True
    ):
        if place is None:
            added += value
        else:
            costs[_first_fused(graph, writers, products, place, timed.op)] += value
    return MeasuredFile(
        sha256=sha256,
        operators=operators_of(graph),
        costs=tuple(costs),
        added=added,
        whole=sum(costs) + added if whole is None else whole,
        unit="us" if profiled.unit == "ns" else "instructions",
    )


def _first_fused(
    graph: Graph, writers: Mapping[str, int], products: Collection[int], place: int, kind: str
) -> int:
    """The operator of a kind before `place` that a runtime fused with what follows and named after
    that: a convolution with its activation; `place` itself if there is none."""
    if place in products:  # it is called a product, but is a convolution
        return place
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


def _operator(
    graph: Graph, op: Op, stored: Mapping[str, str], padders: Mapping[str, Op]
) -> Operator:
    inputs = [_tensor(graph, stored, key) for key in op.inputs if key in graph.tensors]
    outputs = [graph.tensors[key] for key in op.outputs if key in graph.tensors]
    constants = [tensor for tensor in inputs if tensor.constant_bytes is not None]
    computed = [tensor for tensor in inputs if tensor.constant_bytes is None]
    weights = max((tensor.shape or () for tensor in constants), key=math.prod, default=())
    shape = _closed(outputs[0]) if outputs else ()
    window = window_of(graph, op, weights, shape, padders)
    own: dict[str, int] = {
        "channels": weights[-1] if weights else 1,
        "filters": shape[-1] if shape else 1,
        "positions": math.prod(shape[:-1]),
    }
    if window is not None:
        own = window.model_dump()
    return Operator(
        kind=op.op,
        macs=operator_macs(graph, op) or 0,
        read=sum(map(_bytes, computed)),
        written=sum(map(_bytes, outputs)),
        constant=sum(tensor.constant_bytes or 0 for tensor in constants),
        **own,
    )


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
