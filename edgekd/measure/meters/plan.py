"""What a file reveals without being run: its size, planned memory, and an energy estimate."""

from collections.abc import Sequence

from edgekd.errors import InputError
from edgekd.firmware.arena import measure_arena
from edgekd.formats.arena import planned_arena
from edgekd.formats.graph import Graph
from edgekd.formats.macs import count_macs
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.onnx_shapes import with_shapes
from edgekd.formats.tflite import read_tflite
from edgekd.measure.meters.energy import estimated_energy
from edgekd.measure.meters.onnxruntime_plan import measure_plan
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Measurement

FORMULA = "formula"
MICRO_BYTES = 4_000_000
"""A larger file is not for a microcontroller, and trying it in the micro runtime would
take long."""

MICRO_SECONDS = 20.0
UNREAD = "only .onnx and .tflite files list their operators"


def static_measurements(artifact: Artifact) -> list[Measurement]:
    """Measurements that need no run; each unavailable with the reason if the file does not provide
    it.

    `size_bytes`, `planned_memory_bytes` (unless the compiler reported it), `micro_arena_bytes` of a
    TFLite file, and `energy_estimate_mj`.
    """
    size = Measurement(
        metric="size_bytes", value=float(artifact.bytes), kind="measured", device="host"
    )
    graph, reason = _graph(artifact)
    rows = [size, _energy(artifact, graph, reason)]
    if "planned_memory_bytes" not in artifact.facts:
        rows.append(_planned(artifact, graph, reason))
    if artifact.format == "tflite":
        rows.append(_micro(artifact, reason))
    if artifact.format == "edgetpu":
        rows += _edgetpu(artifact)
    return rows


def _edgetpu(artifact: Artifact) -> list[Measurement]:
    """Parameters cached on the chip and parameters streamed to it, as reported by the compiler."""
    rows = []
    for metric, fact in (("on_chip_bytes", "cached_bytes"), ("off_chip_bytes", "streamed_bytes")):
        value = artifact.facts.get(fact)
        number = float(value) if value is not None else None
        why = "only the compiler's log reports it, and the file was compiled elsewhere"
        rows.append(_estimate(metric, number, why, "the Edge TPU compiler's log"))
    return rows


def _graph(artifact: Artifact) -> tuple[Graph | None, str]:
    """The file's own graph, or None if the file is to run with sizes other than those it
    records."""
    path = artifact.path
    try:
        if path.suffix == ".tflite":
            graph = read_tflite(path)
        elif path.suffix == ".onnx":
            graph = with_shapes(read_onnx(path), path)
        else:
            return None, UNREAD
    except InputError as error:
        return None, error.message
    given = {info.name: _of_one(info.shape) for info in artifact.inputs}
    for key in graph.inputs:
        tensor = graph.tensors[key]
        if _of_one(tensor.shape or ()) != given.get(tensor.name, _of_one(tensor.shape or ())):
            return None, f"the file leaves the sizes of '{tensor.name}' open"
    return graph, ""


def _of_one(shape: Sequence[int]) -> list[int]:
    return [max(size, 1) for size in shape]


def _planned(artifact: Artifact, graph: Graph | None, reason: str) -> Measurement:
    planned = None
    if artifact.format == "onnx":
        shapes = {info.name: info.shape for info in artifact.inputs}
        found = measure_plan(artifact.path, shapes)
        if found.value is not None or graph is None:
            return found
    if graph is not None:
        planned, reason = planned_arena(graph)
    return _estimate(
        "planned_memory_bytes",
        planned,
        reason,
        "lifetimes of the file's own tensors, placed greedily by size; not what kernels take "
        "besides",
    )


def _energy(artifact: Artifact, graph: Graph | None, reason: str) -> Measurement:
    macs = None
    if graph is not None:
        macs, reason = count_macs(graph)
    if graph is None or macs is None:
        return _estimate("energy_estimate_mj", None, reason, "")
    ends = (*graph.inputs, *graph.outputs)
    moved = sum(graph.tensors[key].bytes or 0 for key in ends if key in graph.tensors)
    # A file with float inputs may still compute in int8, as its activations show.
    quantized = any(op.op == "QuantizeLinear" for op in graph.ops)
    precision = "int8" if quantized and artifact.precision == "fp32" else artifact.precision
    return estimated_energy(macs, graph.parameter_bytes + moved, precision)


def _micro(artifact: Artifact, reason: str) -> Measurement:
    """The micro runtime's arena, under a name of its own because no board's memory was measured."""
    if reason:
        return _estimate("micro_arena_bytes", None, reason, "")
    if artifact.bytes > MICRO_BYTES:
        why = f"the file is larger than {MICRO_BYTES} bytes: too large for a microcontroller"
        return _estimate("micro_arena_bytes", None, why, "")
    found = measure_arena(artifact.path, MICRO_SECONDS)
    return found.model_copy(update={"metric": "micro_arena_bytes"})


def _estimate(metric: str, value: float | None, reason: str, protocol: str) -> Measurement:
    return Measurement(
        metric=metric,
        value=None if value is None else float(value),
        kind="unavailable" if value is None else "estimated",
        device=FORMULA,
        reason=reason if value is None else "",
        protocol=protocol,
    )
