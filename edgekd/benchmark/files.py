"""`edgekd bench`: measure model files on a device, including files that edgekd did not make."""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.benchmark.options import (
    Range,
    Shape,
    check_overrides,
    chosen_shapes,
    open_faults,
    options_for,
    tensors_of,
)
from edgekd.benchmark.ranges import ranges_of
from edgekd.benchmark.throughput import Load, Throughput, throughputs
from edgekd.devices import Device, Options, Samples
from edgekd.devices.opening import arch_mismatch
from edgekd.errors import (
    EdgekdError,
    InputError,
    MissingRuntime,
    ToolError,
    nearest,
    raise_all,
)
from edgekd.formats.onnx_file import external_files
from edgekd.formats.tflite import read_tflite
from edgekd.measure.budgets import judge
from edgekd.measure.cost_table import keep_costs, table_folder
from edgekd.measure.layer_times import LayerTimes, layer_times, reference_of
from edgekd.measure.measuring import measure
from edgekd.measure.meters.external import open_meter
from edgekd.measure.meters.latency import ratio
from edgekd.measure.meters.plan import static_measurements
from edgekd.measure.meters.quality import quality_warnings
from edgekd.store import cache_folder
from edgekd.values.artifact import Artifact, TensorInfo, sha256_of
from edgekd.values.backend import FileKind
from edgekd.values.backend_lookup import recognized_file, suffixes
from edgekd.values.measurement import Judgement, Kind, Measurement, unavailable
from edgekd.values.tables import Value
from edgekd.values.target import Target, load_target


class BenchResult(Value):
    """One file's measurements. `ratio` is the baseline's latency over this file's, so 2 means twice
    as fast. `window_starts_s` and `window_medians_ms` describe the windows in which the runs were
    timed, on the device's clock. `layers` are the times of the operators and `throughput` the rates
    by batch and streams, if they are wanted. `notes` are quality warnings and the assumptions that
    were made.
    """

    path: Path
    format: str
    runtime: str
    sha256: str
    bytes: int
    device: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    measurements: tuple[Measurement, ...]
    ratio: Measurement | None = None
    budgets: tuple[Judgement, ...] = ()
    baseline: bool = False
    quick: bool = False
    layers: LayerTimes | None = None
    throughput: tuple[Throughput, ...] = ()
    window_starts_s: tuple[float, ...] = ()
    window_medians_ms: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


class Wanted(Value):
    """How files are to be run, beyond what the target's profile says, and which limits apply.

    `options` override the profile's table of each runtime (threads, affinity, provider, delegate,
    scope). `shapes` are for inputs with open sizes and for TVM libraries, which do not record
    shapes, and `ranges` for the random values of inputs. `meter` is an external meter's command
    line, and `meter_format` what it prints. `per_layer` also times each operator, and `load` also
    measures the throughput of batches and streams, apart from the latencies.
    """

    options: Options = {}
    shapes: tuple[Shape, ...] = ()
    ranges: tuple[Range, ...] = ()
    budgets: dict[str, float] = {}
    accept: tuple[Kind, ...] = ()
    meter: str = ""
    meter_format: str = "watts"
    per_layer: bool = False
    load: Load | None = None


def bench_files(
    paths: Sequence[Path],
    target: Target | None,
    device: Device,
    *,
    quick: bool = False,
    baseline: Path | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008  (a frozen value)
) -> list[BenchResult]:
    """Measure the files, interleaved with each other and with `baseline` (listed first if given).

    The target's profile supplies options and sensors, and costs satisfy a budget only on the
    target's own kind of machine. Without a target, files run as on x86 and budgets are held against
    the device at hand. Inputs are random with a fixed seed. Raises `InputError` for a file that is
    not a model or leaves its shapes open, `MissingRuntime` if the device has no runtime for a file;
    the faults of all files are reported together.
    """
    others = [path for path in paths if path != baseline]
    if not others:
        what = "no file to measure" if baseline is None else "no file besides the baseline"
        raise InputError(what, where="bench")
    files = [*([baseline] if baseline else []), *others]
    if wanted.meter and device.kind != "measured":
        raise InputError(
            f"{device.name} is emulated: an external meter would read this machine's power",
            where="--meter",
        )
    profile = target or load_target("x86")
    loaded = loaded_files(files, profile, device, wanted)
    artifacts = [each.artifact for each in loaded]
    tables = [each.options for each in loaded]
    recorder = open_meter(wanted.meter, wanted.meter_format, device) if wanted.meter else None
    samples, rows = measure(
        device, artifacts, tables, profile.sensors, quick=quick, recorder=recorder
    )
    results = [
        _result(each, taken, row, device, quick)
        for each, taken, row in zip(loaded, samples, rows, strict=True)
    ]
    if baseline is not None:
        results = _compared(results, samples, device)
    if wanted.per_layer:
        results = [
            result.model_copy(update={"layers": _layer_times(result, each, device, baseline)})
            for result, each in zip(results, loaded, strict=True)
        ]
    if wanted.load is not None:
        results = [
            _loaded_down(result, each, device, wanted.load)
            for result, each in zip(results, loaded, strict=True)
        ]
    if not wanted.budgets:
        return results
    elsewhere = arch_mismatch(device, target) if target else None
    return [
        result if result.baseline else _judged(result, len(row), elsewhere, wanted)
        for result, row in zip(results, rows, strict=True)
    ]


def _layer_times(
    result: BenchResult, loaded: "_Loaded", device: Device, baseline: Path | None
) -> LayerTimes:
    """The times of a file's operators, or why there are none."""
    artifact, reference = loaded.artifact, reference_of(loaded.artifact.path, baseline)
    try:
        profiled = device.profile(artifact, loaded.options, quick=result.quick)
    except (MissingRuntime, ToolError) as error:
        return LayerTimes(kind="unavailable", reason=error.message)
    whole = next((row.value for row in result.measurements if row.metric == "latency_ms_p50"), None)
    with suppress(InputError):  # its operators can't be read: nothing to learn from it
        folder = table_folder(cache_folder(), device, artifact, loaded.options)
        keep_costs(folder, artifact, profiled, None if whole is None else 1e3 * whole)
    return layer_times(profiled, artifact, reference, device.kind, whole)


def _loaded_down(result: BenchResult, loaded: "_Loaded", device: Device, load: Load) -> BenchResult:
    """The result with the rates that the file reaches."""
    rows, notes = throughputs(device, loaded.artifact, loaded.options, load, result.quick)
    return result.model_copy(update={"throughput": rows, "notes": (*result.notes, *notes)})


def _judged(
    result: BenchResult, costs: int, elsewhere: InputError | None, wanted: Wanted
) -> BenchResult:
    """The result with its budgets. The first `costs` measurements are costs of the device, which
    count only on the target's own kind of machine."""
    counting = result.measurements
    if elsewhere is not None:
        message, device = elsewhere.message, result.device
        gone = [unavailable(row.metric, message, device=device) for row in counting[:costs]]
        counting = (*gone, *counting[costs:])
    budgets = tuple(judge(wanted.budgets, counting, wanted.accept))
    return result.model_copy(update={"budgets": budgets})


def _compared(
    results: Sequence[BenchResult], samples: Sequence[Samples], device: Device
) -> list[BenchResult]:
    """The results, each with its latency ratio to the first one, the baseline."""
    compared = [ratio(samples[0], each, device.name, device.kind) for each in samples[1:]]
    return [
        results[0].model_copy(update={"baseline": True}),
        *(
            result.model_copy(update={"ratio": found})
            for result, found in zip(results[1:], compared, strict=True)
        ),
    ]


@dataclass(frozen=True)
class _Loaded:
    """A file that the device can run, its options, and the assumptions made about it."""

    artifact: Artifact
    options: Options
    notes: tuple[str, ...]


def loaded_files(
    files: Sequence[Path], target: Target, device: Device, wanted: Wanted
) -> list[_Loaded]:
    """Each file with its options. Raises the faults of all files together."""
    faults: list[EdgekdError] = []
    found: list[_Loaded] = []
    runtimes: list[str] = []
    for path in files:
        try:
            backend, kind = _kind(path)
            runtimes.append(kind.runtime)
            own = target.backends.get(backend, {})
            options = {**own, **options_for(kind.runtime, wanted.options)}
            found.append(_load(path, kind, target, device, options, wanted))
        except (InputError, MissingRuntime) as error:
            faults += error.faults
    if len(runtimes) == len(files):
        faults += check_overrides(wanted.options, runtimes)
    known = {info.name for each in found for info in each.artifact.inputs}
    if len(found) == len(files):
        named = [("--shape", shape.name) for shape in wanted.shapes if shape.name]
        faults += [
            InputError(f"none of the files has an input '{name}'", where=where,
                       allowed=", ".join(sorted(known)), hint=nearest(name, known))
            for where, name in (*named, *(("--input", each.name) for each in wanted.ranges))
            if name not in known
        ]  # fmt: skip
    raise_all(faults)
    return found


def _kind(path: Path) -> tuple[str, FileKind]:
    """Which backend makes such files, and what it says about them."""
    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "not a file", where=str(path))
    recognized = recognized_file(path)
    if recognized is None:
        raise InputError(
            f"unknown model format '{path.suffix}'",
            where=str(path),
            allowed=", ".join(suffixes()),
            hint=nearest(path.suffix.lower(), suffixes()),
        )
    return recognized


def _load(
    path: Path,
    kind: FileKind,
    target: Target,
    device: Device,
    options: Options,
    wanted: Wanted,
) -> _Loaded:
    """What the runtime says about a file; the precision is taken from its inputs where they show
    it."""
    outputs: tuple[TensorInfo, ...] = ()
    if not kind.tells_inputs:
        inputs = tensors_of(wanted.shapes)
        if not inputs:
            raise InputError(
                f"a {path.suffix} file does not record the shapes of its inputs",
                where=str(path),
                hint="give --shape 1,3,224,224 for each input in order; append :int8 for a "
                "type other than float32",
            )
    else:
        inputs, outputs = device.probe(path, kind.runtime, options)
        inputs = _with_open_sizes(path, inputs, str(options.get("signature") or ""))
        given = chosen_shapes(inputs, wanted.shapes, str(path))
        options = {**options, "shapes": {name: list(sizes) for name, sizes in given.items()}}
        inputs = tuple(
            info.model_copy(update={"shape": given.get(info.name, info.shape)}) for info in inputs
        )
        raise_all(open_faults(inputs, str(path)))
    artifact = Artifact(
        path=path,
        format=kind.format,
        runtime=kind.runtime,
        precision=_precision(inputs),
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size + sum(file.stat().st_size for file in _beside(path)),
        inputs=inputs,
        outputs=outputs,
    )
    reason = device.can_run(artifact)
    if reason:
        there = device.hello().runtimes.get(kind.runtime)
        raise (InputError if there else MissingRuntime)(reason, where=str(path))
    batches = [info.name for info in inputs if info.shape[:1] == (-1,)]
    notes = tuple(f"input '{name}' has an open batch size: 1 is assumed" for name in batches)
    signature = str(options.get("signature") or "")
    ranges, drawn = ranges_of(path, inputs, wanted.ranges, signature)
    options = {**options, "ranges": ranges} if ranges else options
    return _Loaded(artifact, options, (*notes, *drawn, *_signature_notes(path, signature)))


def _signature_notes(path: Path, chosen: str) -> list[str]:
    """A note on a TFLite file that can be called in several ways, where none was chosen."""
    if path.suffix.lower() != ".tflite" or chosen:
        return []
    names = str(read_tflite(path).facts["signatures"])
    return [f"its signatures are {names}: the first is measured (--signature)"] if names else []


def _beside(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold its weights, as far as the file can be read here."""
    if path.suffix.lower() != ".onnx":
        return ()
    try:
        return tuple(file for file in external_files(path) if file.is_file())
    except InputError:  # the device's runtime has loaded it all the same
        return ()


def _with_open_sizes(
    path: Path, inputs: tuple[TensorInfo, ...], signature: str
) -> tuple[TensorInfo, ...]:
    """Restore open sizes: LiteRT reports 1 for them, but the file itself records them."""
    if path.suffix.lower() != ".tflite":
        return inputs
    graph = read_tflite(path, signature)
    stored = {graph.tensors[key].name: graph.tensors[key].shape for key in graph.inputs}
    return tuple(
        info.model_copy(update={"shape": stored.get(info.name) or info.shape}) for info in inputs
    )


def _precision(inputs: Sequence[TensorInfo]) -> Any:
    kinds = {info.dtype for info in inputs}
    if kinds & {"int8", "uint8"}:
        return "int8"
    return "fp16" if "float16" in kinds else "fp32"


def _result(
    loaded: _Loaded, samples: Samples, row: tuple[Measurement, ...], device: Device, quick: bool
) -> BenchResult:
    artifact = loaded.artifact
    spans = samples.spans_s or ((0.0, 0.0),) * len(samples.windows_ms)
    simulated = device.kind != "measured"
    return BenchResult(
        path=artifact.path,
        format=artifact.format,
        runtime=artifact.runtime,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        device=device.name,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        measurements=(*row, *static_measurements(artifact)),
        quick=quick,
        window_starts_s=tuple(start for start, _ in spans),
        window_medians_ms=tuple(statistics.median(window) for window in samples.windows_ms),
        notes=(*loaded.notes, *(() if simulated else quality_warnings(samples))),
    )
