"""What a model file holds, read without running it: operators, types, sizes, memory, placement."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd.backends.edgetpu.placement import edgetpu_placements
from edgekd.backends.tensorrt.placement import quantization_faults, quantized_ops
from edgekd.errors import EdgekdError, InputError, nearest
from edgekd.formats.arena import planned_arena
from edgekd.formats.graph import Graph, Op, float_islands, info_of, live_peak
from edgekd.formats.library import read_library
from edgekd.formats.macs import count_macs
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.onnx_shapes import with_shapes
from edgekd.formats.program import read_program
from edgekd.formats.tflite import read_tflite
from edgekd.values.artifact import OpPlacement, TensorInfo
from edgekd.values.options import EdgetpuOptions
from edgekd.values.tables import Value
from edgekd.values.target import Target, fits, unsupported_ops_of

READERS: Mapping[str, Callable[[Path], Graph]] = {
    ".tflite": read_tflite,
    ".onnx": read_onnx,
    ".pt2": read_program,
}
SUFFIXES = (*READERS, ".so")
SHOWN = 8


class Inspection(Value):
    """What one file says of itself.

    `parameter_bytes` counts constants wherever the format keeps them. `activation_bytes` is the
    peak of live tensors, always an estimate: `reasons` says why a number is None. `placements` are
    where the target's accelerator would run each operator, empty without one. `notes` name what the
    user should know: float islands, transposes, what does not fit.
    """

    path: Path
    format: str
    file_bytes: int
    ops: dict[str, int]
    dtypes: dict[str, int]
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    parameter_bytes: int | None = None
    activation_bytes: int | None = None
    placements: tuple[OpPlacement, ...] = ()
    notes: tuple[str, ...] = ()
    reasons: dict[str, str] = {}
    facts: dict[str, float | str] = {}


def inspect_artifact(path: Path, target: Target | None = None) -> Inspection:
    """Read a .tflite, .onnx, .pt2 or TVM .so file, and judge it for a target if one is given.

    Raises:
        InputError: the file is missing, truncated, corrupt or of another format.
    """
    suffix = path.suffix.lower()
    if suffix == ".so":
        return _inspect_library(path, target)
    if path.is_dir():
        raise InputError("it is a folder", where=str(path), allowed="a model file")
    if suffix not in READERS:
        raise InputError(
            f"no reader for '{path.suffix or path.name}' files",
            where=str(path),
            allowed=", ".join(SUFFIXES),
            hint=nearest(suffix, SUFFIXES),
        )
    stored = READERS[suffix](path)
    graph = with_shapes(stored, path) if suffix == ".onnx" else stored
    activation_bytes, reason = live_peak(graph)
    placements, facts, notes = _for_target(graph, suffix, target, activation_bytes)
    if suffix == ".tflite" and target is not None and "vela" in target.backends:
        placements, facts, told = _by_vela(path, graph, target)
        notes += told
    return Inspection(
        path=path,
        format=suffix.removeprefix("."),
        file_bytes=path.stat().st_size + int(graph.facts.get("external_bytes", 0)),
        ops=graph.counts,
        dtypes=_dtypes(graph),
        inputs=tuple(info_of(stored.tensors[key]) for key in graph.inputs if key in stored.tensors),
        outputs=tuple(
            info_of(stored.tensors[key]) for key in graph.outputs if key in stored.tensors
        ),
        parameter_bytes=graph.parameter_bytes,
        activation_bytes=activation_bytes,
        placements=placements,
        notes=(*_shape_notes(graph, suffix), *notes),
        reasons={"activation_bytes": reason} if reason else {},
        facts={
            **graph.facts,
            "activation_bytes_kind": "estimated",
            **({} if suffix == ".pt2" else _planned(graph)),
            **facts,
        },
    )


def _planned(graph: Graph) -> dict[str, float | str]:
    """An arena planned for the file's tensors, and multiply-accumulates, where the file says
    enough."""
    found = {"planned_arena_bytes": planned_arena(graph)[0], "macs": count_macs(graph)[0]}
    return {name: float(value) for name, value in found.items() if value is not None}


def _dtypes(graph: Graph) -> dict[str, int]:
    """How many tensors there are of each data type, computed and constant ones."""
    return dict(Counter(tensor.dtype for tensor in graph.tensors.values()).most_common())


def _shape_notes(graph: Graph, suffix: str) -> list[str]:
    notes = []
    if suffix == ".tflite":
        islands = float_islands(graph)
        if islands:
            notes.append(f"float islands: {_listed(islands)}")
    transposes = [op for op in graph.ops if op.op in ("TRANSPOSE", "Transpose")]
    if transposes:
        notes.append(f"transposes: {_listed(tuple(transposes))}")
    if "QuantizeLinear" in graph.counts:
        notes.append("activations as the file writes them; fusing its QDQ pairs takes less")
    return notes


def _listed(ops: tuple[Op, ...]) -> str:
    shown = ", ".join(f"{op.op} '{op.name}'" for op in ops[:SHOWN])
    more = len(ops) - SHOWN
    return shown + (f" and {more} more" if more > 0 else "")


def _for_target(
    graph: Graph, suffix: str, target: Target | None, activation_bytes: int | None
) -> tuple[tuple[OpPlacement, ...], dict[str, float | str], list[str]]:
    """What the target's accelerator maps, whether the model fits, and which ops it can't run."""
    if target is None:
        return (), {}, []
    notes = []
    reason = fits(target, graph.parameter_bytes, activation_bytes or 0)
    if reason:
        notes.append(f"does not fit: {reason}")
    if suffix == ".pt2":
        refused = unsupported_ops_of(graph.counts, target)
        notes += [f"{target.name} can't run {op}" for op in refused]
    placements: tuple[OpPlacement, ...] = ()
    facts: dict[str, float | str] = {}
    edgetpu = target.accelerator("edgetpu")
    if suffix == ".tflite" and edgetpu is not None and edgetpu.on_chip_bytes is not None:
        options = EdgetpuOptions(**target.backends.get("edgetpu", {}))
        placements, facts = edgetpu_placements(graph, edgetpu.on_chip_bytes, options.reserve_bytes)
    if suffix == ".onnx" and "tensorrt" in target.backends and "QuantizeLinear" in graph.counts:
        faults = quantization_faults(graph)
        facts = {"int8_ops": quantized_ops(graph), "kind": "estimated"}
        notes += [f"TensorRT: {fault}" for fault in faults[:SHOWN]]
    return placements, facts, notes


def _by_vela(
    path: Path, graph: Graph, target: Target
) -> tuple[tuple[OpPlacement, ...], dict[str, float | str], list[str]]:
    """What Vela maps of a file, or a note why it can't be asked."""
    from edgekd.backends.vela import NPU_OP, Vela, examine

    if NPU_OP in graph.counts:
        return (), {}, ["Vela made this file: its NPU operators are commands already"]
    missing = Vela().missing()
    if missing:
        return (), {}, [f"what the NPU maps is not known: {missing[0]}; {missing[0].hint}"]
    try:
        placements, facts = examine(path, target.backends["vela"])
    except EdgekdError as error:
        return (), {}, [f"Vela: {error.message}"]
    return placements, facts, []


def inspection_lines(found: Inspection) -> list[str]:
    """An inspection as the lines that the terminal shows."""
    lines = [f"{found.path} ({found.format}, {found.file_bytes:,} bytes)"]
    for title, number, kind in (
        ("parameters", found.parameter_bytes, ""),
        ("activations at their peak", found.activation_bytes, " (estimated)"),
    ):
        key = "parameter_bytes" if title == "parameters" else "activation_bytes"
        told = (
            f"{number:,} bytes{kind}" if number is not None else found.reasons.get(key, "unknown")
        )
        lines.append(f"{title}: {told}")
    lines += [f"input {_told(one)}" for one in found.inputs]
    lines += [f"output {_told(one)}" for one in found.outputs]
    if found.dtypes:
        lines.append("tensors: " + ", ".join(f"{n} {name}" for name, n in found.dtypes.items()))
    lines.append("operators: " + ", ".join(f"{n} {name}" for name, n in found.ops.items()))
    lines += _placement_lines(found)
    lines += [f"{name}: {_plain(value)}" for name, value in found.facts.items() if value != ""]
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _plain(value: float | str) -> str:
    return f"{value:,.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _told(info: TensorInfo) -> str:
    shape = "x".join("?" if size < 0 else str(size) for size in info.shape) or "scalar"
    grid = "" if info.scale is None else f", scale {info.scale:.6g}, zero point {info.zero_point}"
    return f"{info.name}: {info.dtype} {shape}{grid}"


def _placement_lines(found: Inspection) -> list[str]:
    if not found.placements:
        return []
    counts = Counter(one.placement for one in found.placements)
    kind = found.facts.get("kind", "estimated")
    lines = [f"placement ({kind}): " + ", ".join(f"{n} {unit}" for unit, n in counts.items())]
    left = [one for one in found.placements if one.placement == "cpu"]
    lines += [f"  on the CPU: {one.op} '{one.name}': {one.reason}" for one in left[:SHOWN]]
    if len(left) > SHOWN:
        lines.append(f"  and {len(left) - SHOWN} more on the CPU")
    return lines


def _inspect_library(path: Path, target: Target | None) -> Inspection:
    library = read_library(path)
    notes = []
    if not library.kernels:
        notes.append("it exports no TVM kernels")
    if target is not None and library.machine != target.hardware.architecture:
        notes.append(
            f"compiled for {library.machine}; {target.name} is {target.hardware.architecture}"
        )
    if target is not None and target.accelerator("cuda") is not None and not library.gpu_code:
        notes.append("no machine code of a GPU inside")
    unknown = "a compiled library does not say it"
    return Inspection(
        path=path,
        format="so",
        file_bytes=path.stat().st_size,
        ops=dict.fromkeys(library.kernels, 1),
        dtypes={},
        notes=tuple(notes),
        reasons={"parameter_bytes": unknown, "activation_bytes": unknown},
        facts={
            "machine": library.machine,
            "gpu_code": library.gpu_code or "none",
            "read_only_bytes": library.constant_bytes,
        },
    )
