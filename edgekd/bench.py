"""`edgekd bench`: measure model files, also such that edgekd did not make, on a device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.artifact import Artifact, TensorInfo, sha256_of
from edgekd.config import Value
from edgekd.devices import Device, Options
from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.measurement import Measurement
from edgekd.measuring import measure
from edgekd.meters.latency import ratio
from edgekd.target import Target

# suffix: (format, runtime, the target's table whose options run it)
FORMATS = {
    ".onnx": ("onnx", "onnxruntime", "onnx"),
    ".tflite": ("tflite", "litert", "tflite"),
    ".so": ("tvm-so", "tvm", "tvm"),
    ".engine": ("tensorrt", "tensorrt", "tensorrt"),
    ".plan": ("tensorrt", "tensorrt", "tensorrt"),
}
EDGETPU_MARK = b"edgetpu-custom-op"


class BenchResult(Value):
    """One file's measurements. `ratio` is the baseline's latency over this file's: times faster."""

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
    baseline: bool = False
    quick: bool = False


def bench(
    paths: Sequence[Path],
    target: Target,
    device: Device,
    *,
    quick: bool = False,
    baseline: Path | None = None,
    options: Options | None = None,
    inputs: Mapping[Path, Sequence[TensorInfo]] | None = None,
) -> list[BenchResult]:
    """Measure the files, interleaved with each other and with `baseline` (listed first if given).

    Inputs are random with a fixed seed. `options` override the target's own table for the runtime
    (threads, provider, delegate, scope); `inputs` tell the shapes of a TVM library, which does not
    tell them itself. Raises `InputError` for what is no model or has no runtime on the device.
    """
    files = [*([baseline] if baseline else []), *(path for path in paths if path != baseline)]
    if not files:
        raise InputError("no file to measure", where="bench")
    faults: list[EdgekdError] = []
    artifacts, tables = [], []
    for path in files:
        try:
            form = _format(path)
            tables.append({**target.backends.get(form[2], {}), **(options or {})})
            given = tuple((inputs or {}).get(path, ()))
            artifacts.append(_artifact(path, form, target, device, tables[-1], given))
        except InputError as fault:
            faults.append(fault)
    raise_all(faults)
    samples, rows = measure(device, artifacts, tables, target.sensors, quick=quick)
    results = [
        _result(artifact, row, device, quick) for artifact, row in zip(artifacts, rows, strict=True)
    ]
    if baseline is None:
        return results
    compared = [ratio(samples[0], each, device.name, device.kind) for each in samples[1:]]
    return [
        results[0].model_copy(update={"baseline": True}),
        *(
            result.model_copy(update={"ratio": found})
            for result, found in zip(results[1:], compared, strict=True)
        ),
    ]


def bench_lines(results: Sequence[BenchResult]) -> list[str]:
    """The results as a table in text, and below it why a value is missing."""
    head = ("file", "p50 ms", "p90 ms", "p99 ms", "cold ms", "peak MB", "energy mJ", "faster")
    columns = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "cold_start_ms",
               "peak_memory_bytes", "energy_mj")  # fmt: skip
    rows: list[Sequence[str]] = [head]
    missing: dict[str, None] = {}
    for result in results:
        found = {one.metric.replace("end_to_end", "latency"): one for one in result.measurements}
        cells = [_cell(found[name]) for name in columns]
        for name in columns:
            if found[name].value is None:
                missing[f"{found[name].metric}: {found[name].reason}"] = None
        rows.append((result.path.name, *cells, _ratio_cell(result)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    first = results[0].measurements[0]
    stamp = [f"{results[0].device}, {first.protocol}"] if first.protocol else []
    return [*lines, *stamp, *missing]


def _cell(one: Measurement) -> str:
    if one.value is None:
        return "-"
    value = one.value / 1e6 if one.metric.endswith("_bytes") else one.value
    mark = "" if one.kind == "measured" else f" ({one.kind})"
    return f"{value:.4g}{mark}"


def _ratio_cell(result: BenchResult) -> str:
    if result.baseline:
        return "baseline"
    found = result.ratio
    if found is None or found.value is None:
        return "-"
    interval = f" [{found.ci[0]:.3f}, {found.ci[1]:.3f}]" if found.ci else ""
    return f"{found.value:.3f}x{interval}"


def _format(path: Path) -> tuple[str, str, str]:
    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "not a file", where=str(path))
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"no known kind of model, '{path.suffix}'",
            where=str(path),
            allowed=", ".join(FORMATS),
            hint=nearest(suffix, FORMATS),
        )
    if suffix == ".tflite" and EDGETPU_MARK in path.read_bytes():
        return "tflite-edgetpu", "edgetpu", "edgetpu"
    return FORMATS[suffix]


def _artifact(
    path: Path,
    form: tuple[str, str, str],
    target: Target,
    device: Device,
    options: dict[str, Any],
    given: tuple[TensorInfo, ...],
) -> Artifact:
    """What the runtime says of a file; its precision is that of its inputs, as far as it shows."""
    kind, runtime, _ = form
    if runtime == "tvm" and not given:
        raise InputError(
            "a TVM library does not tell the shapes of its inputs",
            where=str(path),
            hint="measure it in the run that compiles it, or give `inputs`",
        )
    inputs, outputs = (given, ()) if given else device.probe(path, runtime, options)
    bare = Artifact(
        path=path,
        format=kind,
        runtime=runtime,
        precision=_precision(inputs),
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
    )
    reason = device.can_run(bare)
    if reason:
        raise InputError(reason, where=str(path))
    return bare


def _precision(inputs: Sequence[TensorInfo]) -> Any:
    kinds = {info.dtype for info in inputs}
    if kinds & {"int8", "uint8"}:
        return "int8"
    return "fp16" if "float16" in kinds else "fp32"


def _result(
    artifact: Artifact, row: tuple[Measurement, ...], device: Device, quick: bool
) -> BenchResult:
    return BenchResult(
        path=artifact.path,
        format=artifact.format,
        runtime=artifact.runtime,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        device=device.name,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        measurements=row,
        quick=quick,
    )
