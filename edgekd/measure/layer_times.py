"""Where a file's time goes: the time of each operator, beside the name of its layer."""

import json
import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from edgekd.devices.replies import Profiled, ProfiledOperator
from edgekd.errors import EdgekdError
from edgekd.formats.file_layers import FileLayer, file_layers, matched_layers, operator_layers
from edgekd.formats.graph import Graph
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.tflite import read_tflite
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Kind
from edgekd.values.tables import Value

FINE = 20
"""A median is good if it is at least this many steps of the clock; else the mean is taken."""


BY_ORDER = {
    "tvm": ("a library's functions are named after layers by their order: parallel branches may be "
            "exchanged",)
}  # fmt: skip
"""What to know about the names in a runtime's table."""


class LayerTime(Value):
    """One operator: the layer's name in the float graph where it is known, the operator as the
    runtime names it, its cost for one inference and its share of all operators' cost."""

    layer: str
    operator: str
    value: float
    share: float


class LayerTimes(Value):
    """The operators of one file in order of execution.

    `unit` is "us" or "instructions", and `statistic` how one number was made of many inferences.
    `total` is the sum, `whole` one inference without recording in the same unit. Without rows,
    `reason` says why.
    """

    kind: Kind
    unit: str = "us"
    statistic: str = ""
    runs: int = 0
    rows: tuple[LayerTime, ...] = ()
    total: float = 0.0
    whole: float | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def layer_times(
    profiled: Profiled,
    artifact: Artifact,
    reference: Path | None,
    kind: Kind,
    whole_ms: float | None = None,
) -> LayerTimes:
    """The operators' costs as one table. `reference` is a file of the same network whose layers
    have names, such as the float one; `whole_ms` the latency measured without recording."""
    runs = min((len(each.values) for each in profiled.operators), default=0)
    if not runs:
        return LayerTimes(kind="unavailable", reason="the runtime recorded no operator")
    timed = profiled.unit == "ns"
    values, statistic = typical_values(profiled), _statistic(profiled)[1]
    names = _names(profiled.operators, artifact.runtime, artifact.path, reference)
    rows = rows_of(names, [_operator(each) for each in profiled.operators], values)
    whole = 1e3 * whole_ms if timed and whole_ms is not None else None
    total = sum(values)
    return LayerTimes(
        kind=kind, unit="us" if timed else "instructions", statistic=statistic, runs=runs,
        rows=rows, total=total, whole=whole,
        notes=(
            *_notes(total, whole, profiled),
            *BY_ORDER.get(artifact.runtime, ()),
            *([profiled.patches] if profiled.patches else []),
        ),
    )  # fmt: skip


def typical_values(profiled: Profiled) -> list[float]:
    """What each operator costs in one inference: microseconds, or instructions."""
    typical, _ = _statistic(profiled)
    scale = 1e3 if profiled.unit == "ns" else 1
    return [typical(each.values) / scale for each in profiled.operators]


def rows_of(
    names: Sequence[str], operators: Sequence[str], values: Sequence[float]
) -> tuple[LayerTime, ...]:
    """Rows with their shares."""
    total = sum(values) or 1.0
    return tuple(
        LayerTime(layer=name, operator=operator, value=value, share=value / total)
        for name, operator, value in zip(names, operators, values, strict=True)
    )


def _statistic(profiled: Profiled) -> tuple[Callable[[Sequence[int]], float], str]:
    """The median where the clock is fine enough for most operators; else the interquartile mean,
    which averages over the steps of the clock and leaves out interrupted inferences."""
    medians = sorted(statistics.median(each.values) for each in profiled.operators)
    if profiled.unit != "ns" or medians[len(medians) // 2] >= FINE * profiled.resolution:
        return statistics.median, "median"
    return interquartile_mean, "interquartile mean"


def interquartile_mean(values: Sequence[int]) -> float:
    """The mean of the middle half."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut])


def _notes(total: float, whole: float | None, profiled: Profiled) -> tuple[str, ...]:
    if whole is None:
        return ()
    gap = f"its operators take {total:.4g} us, a whole inference {whole:.4g} us: "
    if total > 1.25 * whole:
        return (gap + "recording costs time, so shares are more reliable than values",)
    if total < 0.75 * whole and profiled.resolution >= 1000:
        step = f"{profiled.resolution / 1e3:g} us"
        return (gap + f"the runtime's clock counts steps of {step} and misses what is shorter",)
    if total < 0.75 * whole:
        return (gap + "the rest is spent between operators",)
    return ()


def _operator(operator: ProfiledOperator) -> str:
    return operator.op or operator.name


def _names(
    operators: Sequence[ProfiledOperator], runtime: str, path: Path, reference: Path | None
) -> list[str]:
    graph = _graph(path) or (_graph(reference) if reference else None)
    if graph is None:
        return ["" if each.op == each.name else each.name for each in operators]
    layers = reference_names(graph, path, reference)
    if runtime == "tensorrt":
        return [_by_parts(each.name, graph, layers) for each in operators]
    unplaced = [_plain(each.name) if runtime == "onnxruntime" else "" for each in operators]
    return [
        other if place is None else layers[place]
        for place, other in zip(operator_places(operators, graph, runtime), unplaced, strict=True)
    ]


def operator_places(
    operators: Sequence[ProfiledOperator], graph: Graph, runtime: str
) -> list[int | None]:
    """The position in the file of each operator that a runtime timed; None for what it added."""
    if runtime == "onnxruntime":
        return [_place(each.name, graph) for each in operators]
    names = [op.op for op in graph.ops]
    places = aligned([each.op for each in operators], names, pointwise(graph))
    return [
        each.index if 0 <= each.index < len(graph.ops) else place
        for each, place in zip(operators, places, strict=True)
    ]


def pointwise(graph: Graph) -> set[int]:
    """The places of TFLite's convolutions with a kernel of 1x1 in steps of one, which XNNPACK
    computes as fully connected layers and calls so."""
    found = set()
    for place, op in enumerate(graph.ops):
        if op.op != "CONV_2D" or len(op.inputs) < 2:
            continue
        weights = graph.tensors.get(op.inputs[1])
        steps = {op.attributes.get(f"Stride{side}", 1) for side in "HW"}
        if weights is not None and (weights.shape or ())[1:3] == (1, 1) and steps == {1}:
            found.add(place)
    return found


def _graph(path: Path) -> Graph | None:
    try:
        if path.suffix.lower() == ".onnx":
            return read_onnx(path)
        return read_tflite(path) if path.suffix.lower() == ".tflite" else None
    except EdgekdError:  # its runtime has loaded it all the same
        return None


def reference_names(graph: Graph, path: Path, reference: Path | None) -> list[str]:
    """The layer of each operator of a file, by the names of a reference file and of the run that
    the file belongs to."""
    layers = operator_layers(graph)
    own_layers, modules = file_layers(graph), _modules(path)
    known = _graph(reference) if reference is not None else None
    if known is not None:
        kinds = [[op.op for op in each.ops] for each in (graph, known)]
        named = operator_layers(known)
        for place, there in enumerate(aligned(kinds[0], kinds[1])):
            if is_wrapper(layers[place]):
                layers[place] = named[there] if there is not None else ""
        for theirs, own in matched_layers(file_layers(known), own_layers):
            layers[own.place] = theirs.name
    _name_by_size(layers, own_layers, modules)
    dotted = {_flat(name): name for name in modules}
    return ["" if is_wrapper(name) else dotted.get(_flat(name), name) for name in layers]


def is_wrapper(name: str) -> bool:
    """Whether a converter named an operator after what it wraps the network in."""
    return name.startswith(("__main__", "serving_default_"))


def _name_by_size(
    layers: list[str], weighted: Sequence[FileLayer], modules: Mapping[str, int]
) -> None:
    """Name layers that the file doesn't: each after the first module left with as many parameters,
    with or without a bias."""
    left = dict(modules)
    for layer in weighted:
        if not is_wrapper(layers[layer.place]):
            continue
        size = layer.weight.size
        fits = (name for name, parameters in left.items()
                if parameters in (size, size + len(layer.weight)))  # fmt: skip
        name = next(fits, "")
        if name:
            layers[layer.place] = name
            del left[name]


def _modules(file: Path) -> dict[str, int]:
    """The parameters of the modules of the run that a file belongs to."""
    for folder in file.resolve().parents[:3]:
        report = folder / "report.json"
        if report.is_file():
            try:
                layers = json.loads(report.read_text(encoding="utf-8"))["layers"]["after"]
                return {str(row["name"]): int(row["parameters"]) for row in layers}
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                return {}
    return {}


def _flat(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)


def reference_of(path: Path, baseline: Path | None) -> Path | None:
    """A file with the names of the float graph: the baseline, or the float or ONNX file that lies
    beside this one in a run."""
    if baseline is not None and baseline.suffix.lower() in (".onnx", ".tflite"):
        return baseline
    for name in ("teacher.onnx", "model.onnx"):
        beside = path.parent / name
        if beside.is_file() and (path.parent.parent.parent / "report.json").is_file():
            return beside
    return None


_ADDED = re.compile(r"(_token_\d+|_nchwc|_fused.*|_quant.*|_kernel.*)$")


def _plain(name: str) -> str:
    """An operator's name without what ONNX Runtime adds to it."""
    return _ADDED.sub("", name)


def _place(name: str, graph: Graph) -> int | None:
    """The position of the operator of which, or of several, ONNX Runtime made one of this name."""
    plain = _plain(name)
    best = max(
        ((len(op.name), place) for place, op in enumerate(graph.ops)
         if plain == op.name or name.startswith(op.name)),
        default=None,
    )  # fmt: skip
    if best:
        return best[1]
    writers = [place for place, op in enumerate(graph.ops) if plain in op.outputs]
    return writers[0] if writers else None


def _by_parts(name: str, graph: Graph, layers: Sequence[str]) -> str:
    """The layers of a fused operator that TensorRT calls `a + b`, or `PWN(a)`."""
    words = re.split(r"\s*\+\s*|[(),]\s*|\s*\|\|\s*", name)
    places = {op.name: place for place, op in enumerate(graph.ops)}
    found = [layers[places[word]] for word in words if word in places]
    return " + ".join(dict.fromkeys(found)) or name


KINDS = (
    ("conv", ("conv",)),
    ("product", ("fully", "gemm", "matmul", "dense", "batch_matmul", "batch matrix")),
    ("add", ("add", "sum")),
    ("mul", ("mul",)),
    ("pool", ("pool", "mean")),
    ("softmax", ("softmax",)),
    ("concat", ("concat",)),
    ("pad", ("pad",)),
    ("reshape", ("reshape", "flatten")),
    ("transpose", ("transpose",)),
    ("norm", ("norm",)),
    ("quantize", ("quantize", "convert")),
    ("logistic", ("logistic", "sigmoid")),
    ("tanh", ("tanh",)),
    ("swish", ("swish",)),
    ("clamp", ("relu", "clamp", "clip")),
)
"""What operators are called in different runtimes; the first part that a name contains counts."""


def kind_of_operator(name: str) -> str:
    """One word for what an operator does, or its own name."""
    lower = name.lower()
    return next((kind for kind, parts in KINDS if any(part in lower for part in parts)), lower)


def aligned(
    names: Sequence[str], known: Sequence[str], products: Collection[int] = ()
) -> list[int | None]:
    """For each operator the place of the one that it was made of, in order, by their kinds. Those
    known at the places `products` may be called products too.

    The longest common subsequence of the kinds; what a runtime added (a clamp, a copy) belongs to
    the operator before it.
    """
    a, b = [kind_of_operator(name) for name in names], [kind_of_operator(name) for name in known]

    def alike(i: int, j: int) -> bool:
        return a[i] == b[j] or (a[i] == "product" and j in products)

    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            skipped = max(best[i + 1][j], best[i][j + 1])
            best[i][j] = max(skipped, 1 + best[i + 1][j + 1]) if alike(i, j) else skipped
    places: list[int | None] = []
    i = j = 0
    while i < len(a):
        if j < len(b) and alike(i, j) and best[i][j] == 1 + best[i + 1][j + 1]:
            places.append(j)
            i, j = i + 1, j + 1
        elif j < len(b) and best[i][j] == best[i][j + 1]:
            j += 1
        else:
            places.append(places[-1] if places else None)
            i += 1
    return places
