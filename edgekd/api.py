"""The Python API: what `edgekd compress`, `bench` and `inspect` do, as functions.

`import edgekd` imports nothing heavy; each name is loaded when it is first used.
"""

# code-key: presents

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from edgekd.backends.inspection import inspect_artifact
from edgekd.benchmark.diagnose import diagnose_files
from edgekd.benchmark.files import BenchResult, Wanted, bench_files
from edgekd.devices.opening import open_device
from edgekd.errors import InputError
from edgekd.installed import switch_telemetry_off
from edgekd.measure.diagnosis import Diagnosis
from edgekd.report.values import Report
from edgekd.run.compress import run_plan
from edgekd.run.diagnose import diagnose_run
from edgekd.run.plan import Plan
from edgekd.run.plan.make import make_plan
from edgekd.run.progress import progress_bars
from edgekd.run.request import Asked, Model, Options, TargetName, make_request
from edgekd.stages import Stage
from edgekd.values.inspection import Inspection
from edgekd.values.target import Target, load_target


def compress(
    model: Model | None,
    *,
    target: TargetName | Sequence[TargetName],
    data: Any = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    budgets: Mapping[str, float] | Iterable[str] = {},
    out: str | Path = "runs/latest",
    progress: bool = True,
    **options: Unpack[Options],
) -> Report:
    """Compress a model for one or more targets, and measure the files against budgets.

    Args:
        model: the trained model, which also teaches: an `nn.Module`, a file (.pt2, .onnx),
            `"package.module:factory"`, another source (`"timm:resnet18"`), a table as a
            recipe's `[model]` has it, or the path of a whole recipe. None is the recipe that comes
            with edgekd. A module is copied first.
        target: a target's name, its .toml file or its profile; or several.
        data: a named set, an .npz file, `"package.module:factory"`, or data sets as objects: a
            mapping with `train`, `test` and perhaps `validation`, each a map-style
            `torch.utils.data.Dataset` of (input, label) or a pair of arrays (x, y). A mapping with
            `source` is a recipe's `[data]` table. None leaves it to the recipe, or to digits.
        stages: stage values (`edgekd.Distill(epochs=3)`) or tables, in order.
        budgets: limits by metric, as in `{"latency_ms": 5, "accuracy_drop": 1.0}`.
        out: the run's folder. A second call with the same arguments reuses what is there.
        progress: whether to draw progress bars in a terminal or a notebook.
        **options: `student` and `teachers` (each like `model`), `backends` (names of those of the
            targets' backends to use), `settings` (recipe keys to override), `device` (a URL),
            `accept` (weaker kinds of number that may satisfy a budget), `seed`, `quick` (measure
            briefly) and `resume`.

    Returns:
        The report. It has `verdict`, shows itself as a page in a notebook, and lies in `out`. A
        backend that made no file is in its target's `failures`; the others are not affected.

    Raises:
        InputError: something that was given is wrong; `faults` has every fault.
        ToolError: a compiler, a runtime, a device or the disk failed.
    """
    asked: Asked = {
        **options, "target": target, "data": data, "stages": stages, "budgets": budgets, "out": out,
    }  # fmt: skip
    planned = plan(model, **asked)
    with progress_bars(progress) as shown:
        return run_plan(planned, shown)


def plan(model: Model | None, **asked: Unpack[Asked]) -> Plan:
    """What `compress` would do with the same arguments, checked without any training.

    `lines()` says it in words. Raises the same errors as `compress`.
    """
    switch_telemetry_off()
    return make_plan(make_request(model, asked))


def bench(
    files: str | Path | Sequence[str | Path],
    *,
    target: str | Path | Target | None = None,
    device: str = "host",
    baseline: str | Path | None = None,
    quick: bool = False,
    wanted: Wanted | None = None,
) -> list[BenchResult]:
    """Measure model files on a device, interleaved in one process.

    Args:
        files: ONNX, TFLite, TVM or TensorRT files, also such that edgekd did not make.
        target: the target whose options and sensors apply; None: the device as it is.
        device: `host`, `ssh://user@board` or `emulated://name`.
        baseline: a file that the others are compared with: `ratio` is how many times faster each
            is.
        quick: measure briefly, which the results say.
        wanted: threads, shapes, budgets, an external meter, `load` for throughput and the like.

    Returns:
        One result a file, the baseline first; latencies in ms, energy in mJ, memory in bytes.

    Raises:
        InputError: a file is not a model, or leaves its shapes open.
        MissingRuntime: the device can't run a file.
        ToolError: the device or a runtime failed.
    """
    switch_telemetry_off()
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    opened = open_device(device)
    try:
        return bench_files(
            paths,
            _profile(target),
            opened,
            quick=quick,
            baseline=Path(baseline) if baseline is not None else None,
            wanted=wanted or Wanted(),
        )
    finally:
        opened.close()


def inspect(file: str | Path, *, target: str | Path | Target | None = None) -> Inspection:
    """A model file's operators, types, sizes and memory plan, and what of it maps to a target.

    Raises `InputError` for a file that is missing, truncated or of another format.
    """
    switch_telemetry_off()
    return inspect_artifact(Path(file), _profile(target))


def diagnose(
    model: str | Path | Report,
    quantized: str | Path | None = None,
    *,
    data: Any = None,
    target: str | Path | Target | None = None,
) -> Diagnosis:
    """Which layers of a quantized model cost accuracy, the worst first, and what would help.

    Args:
        model: a finished run (its folder or report), or the float ONNX or TFLite file.
        quantized: the quantized file, which edgekd need not have made; without one, a float ONNX
            file is calibrated first.
        data: samples for files: an .npz, a .npy, a folder of .npy files, or arrays.
        target: which target of the run, or whose scheme to calibrate for.

    Returns:
        The diagnosis; `layers` has a row for each layer with weights.

    Raises:
        InputError: a file is no model, the two have no layer in common, or the data does not fit.
        ToolError: a runtime failed.
    """
    switch_telemetry_off()
    path = model.folder if isinstance(model, Report) else Path(model)
    if path is None:
        raise InputError("the report is not on disk", where="diagnose")
    if path.is_dir():
        return diagnose_run(path, _profile(target))
    second = Path(quantized) if quantized is not None else None
    given = Path(data) if isinstance(data, str) else data
    return diagnose_files(path, second, given, _profile(target))


def loss(name: str, weight: float | Mapping[str, Any] = 1.0, **parameters: Any) -> dict[str, Any]:
    """One loss of a stage: `edgekd.loss("kl", 0.9, temperature=4.0)`.

    `weight` is a number or a schedule's table; `edgekd methods loss` lists names and parameters,
    which the plan checks.
    """
    return {"name": name, "weight": weight, **parameters}


def _profile(target: str | Path | Target | None) -> Target | None:
    return load_target(str(target)) if isinstance(target, str | Path) else target
