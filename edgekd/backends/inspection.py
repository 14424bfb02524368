"""What a model file holds, read without running it: operators, types, sizes, memory, placement."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd.backends import Described, Follower
from edgekd.errors import InputError, nearest
from edgekd.formats.arena import planned_arena
from edgekd.formats.graph import Graph, Op, float_islands, info_of, live_peak
from edgekd.formats.macs import count_macs
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.onnx_shapes import with_shapes
from edgekd.formats.operator_notes import shown_name
from edgekd.formats.program import read_program
from edgekd.formats.tflite import read_tflite
from edgekd.registry import BACKENDS
from edgekd.values.backend_lookup import backend_info, known_backends, recognized_file
from edgekd.values.inspection import Forecast, Inspection
from edgekd.values.target import Target, fits, unsupported_ops_of

READERS: Mapping[str, Callable[[Path], Graph]] = {
    ".tflite": read_tflite,
    ".onnx": read_onnx,
    ".pt2": read_program,
}
SHOWN = 8


def readable_suffixes() -> tuple[str, ...]:
    """The suffixes of every file that can be inspected."""
    others = [
        suffix
        for name, info in known_backends().items()
        if BACKENDS.get(name).make.inspect is not Described.inspect  # type: ignore[attr-defined]
        for kind in info.files
        for suffix in kind.suffixes
    ]
    return tuple(dict.fromkeys([*READERS, *others]))


def inspect_artifact(path: Path, target: Target | None = None) -> Inspection:
    """Read a .tflite, .onnx or .pt2 file, or one that its backend can read, and judge it for a
    target if one is given.

    Raises:
        InputError: the file is missing, truncated, corrupt or of another format.
    """
    if path.is_dir():
        raise InputError("it is a folder", where=str(path), allowed="a model file")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        return _by_its_backend(path, target)
    stored = READERS[suffix](path)
    graph = with_shapes(stored, path) if suffix == ".onnx" else stored
    activation_bytes, reason = live_peak(graph)
    forecast = _for_target(path, graph, target, activation_bytes)
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
        placements=forecast.placements,
        notes=(*_shape_notes(graph, suffix), *forecast.notes),
        reasons={"activation_bytes": reason} if reason else {},
        facts={
            **graph.facts,
            "activation_bytes_kind": "estimated",
            **({} if suffix == ".pt2" else _planned(graph)),
            **forecast.facts,
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
        notes.append("activations as stored in the file; a runtime that fuses QDQ pairs needs less")
    return notes


def _listed(ops: tuple[Op, ...]) -> str:
    shown = ", ".join(f"{op.op} '{shown_name(op.name)}'" for op in ops[:SHOWN])
    more = len(ops) - SHOWN
    return shown + (f" and {more} more" if more > 0 else "")


def _for_target(
    path: Path, graph: Graph, target: Target | None, activation_bytes: int | None
) -> Forecast:
    """Whether the model fits the target, which operators it can't run, and what its backends that
    start from such a file say about it."""
    if target is None:
        return Forecast()
    notes = []
    forecasts = [follower.forecast(path, graph, target) for follower in _followers_of(path, target)]
    peaks = [each.activation_bytes for each in forecasts if each.activation_bytes is not None]
    reason = fits(target, graph.parameter_bytes, min([activation_bytes or 0, *peaks]))
    if reason:
        notes.append(f"does not fit: {reason}")
    if path.suffix.lower() == ".pt2":
        refused = unsupported_ops_of(graph.counts, target)
        notes += [f"{target.name} can't run {op}" for op in refused]
    return Forecast(
        placements=next((each.placements for each in forecasts if each.placements), ()),
        facts={name: value for each in forecasts for name, value in each.facts.items()},
        notes=(*notes, *(note for each in forecasts for note in each.notes)),
    )


def _followers_of(path: Path, target: Target) -> list[Follower]:
    """The target's backends that start from files with that suffix."""
    suffix = path.suffix.lower()
    infos = {name: backend_info(name) for name in target.backends}
    return [
        BACKENDS.get(name).make()
        for name, info in infos.items()
        if info.follows
        and any(suffix in kind.suffixes for kind in backend_info(info.follows).files)
    ]


def _by_its_backend(path: Path, target: Target | None) -> Inspection:
    """What the backend that makes such files says about one."""
    if path.suffix.lower() not in readable_suffixes():
        raise InputError(
            f"no reader for '{path.suffix or path.name}' files",
            where=str(path),
            allowed=", ".join(readable_suffixes()),
            hint=nearest(path.suffix.lower(), readable_suffixes()),
        )
    recognized = recognized_file(path)
    assert recognized is not None
    backend: Described = BACKENDS.get(recognized[0]).make()
    return backend.inspect(path, target)


def inspection_lines(found: Inspection) -> list[str]:
    """An inspection as the lines that the terminal shows."""
    lines = [f"{found.path} ({found.format}, {found.file_bytes:,} bytes)"]
    for title, number, kind in (
        ("parameters", found.parameter_bytes, ""),
        ("peak activations", found.activation_bytes, " (estimated)"),
    ):
        key = "parameter_bytes" if title == "parameters" else "activation_bytes"
        shown = (
            f"{number:,} bytes{kind}" if number is not None else found.reasons.get(key, "unknown")
        )
        lines.append(f"{title}: {shown}")
    lines += [f"input {one}" for one in found.inputs]
    lines += [f"output {one}" for one in found.outputs]
    if found.dtypes:
        lines.append("tensors: " + ", ".join(f"{n} {name}" for name, n in found.dtypes.items()))
    lines.append("operators: " + ", ".join(f"{n} {name}" for name, n in found.ops.items()))
    lines += _placement_lines(found)
    lines += [f"{name}: {_plain(value)}" for name, value in found.facts.items() if value != ""]
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _plain(value: float | str) -> str:
    return f"{value:,.0f}" if isinstance(value, float) and value.is_integer() else str(value)


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
