"""`edgekd diagnose`: which layers of a quantized model cost accuracy, and what would help.

Of a finished run, of a pair of files that edgekd need not have made, or of a float ONNX file, which
is calibrated first as a target wants it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.data.npz import read_arrays
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError, InputError
from edgekd.measure.diagnosis import Diagnosis
from edgekd.measure.diagnosis.find import diagnose_pair
from edgekd.measure.diagnosis.pair import Pair, read_pair, renamed
from edgekd.measure.layer_times import LayerTimes
from edgekd.report.files import load_report
from edgekd.report.values import ArtifactReport, Report
from edgekd.run.pipeline import load_candidate
from edgekd.run.plan import Plan
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.store import write_beside
from edgekd.values.candidate import Candidate
from edgekd.values.progress import Progress
from edgekd.values.recipe import load_recipe
from edgekd.values.target import Target, load_target
from edgekd.values.tree import leaves

SAMPLES = 64
Data = Path | Sequence[np.ndarray] | Mapping[str, Any] | np.ndarray


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def diagnose_files(
    floating: Path,
    quantized: Path | None,
    data: Data | None,
    target: Target | None = None,
    *,
    timed: bool = True,
    progress: Progress = quiet,
) -> Diagnosis:
    """A float file and its quantized counterpart, or a float ONNX file that is calibrated first."""
    where = str(floating)
    if data is None:
        raise InputError("a diagnosis needs samples", where=where,
                         hint="--data samples.npz: one array for each input")  # fmt: skip
    if quantized is not None:
        pair = read_pair(floating, quantized)
        return _diagnosed(pair, samples_of(data, pair.floating.inputs, where), timed, progress)
    if floating.suffix.lower() != ".onnx":
        raise InputError("only an ONNX file can be diagnosed alone", where=where,
                         hint=f"edgekd diagnose {floating.name} INT8_FILE --data DATA")  # fmt: skip
    from edgekd.backends.onnx.export import write_onnx
    from edgekd.formats.onnx_file import read_onnx
    from edgekd.quant.onnx_calibration import calibrate_onnx

    inputs = samples_of(data, read_onnx(floating).inputs, where)
    tensors = {key: torch.from_numpy(x)
               for key, x in zip(read_onnx(floating).inputs, inputs, strict=True)}  # fmt: skip
    scheme = (target or load_target("x86")).quantization
    with tempfile.TemporaryDirectory(prefix="edgekd-diagnose-") as folder:
        made = Path(folder) / f"{floating.stem}-int8.onnx"
        samples = tensors if len(tensors) > 1 else next(iter(tensors.values()))
        write_onnx(calibrate_onnx(floating, samples, scheme), made)
        return _diagnosed(read_pair(floating, made), inputs, timed, progress)


def diagnose_run(folder: Path, target: str | None = None, progress: Progress = quiet) -> Diagnosis:
    """The int8 model of a finished run against the float candidate that it was made of, on
    validation data, or test data where there is none. Times are those of the run's report."""
    report = load_report(folder)
    name, artifact = _int8_file(report, folder, target)
    recipe = load_recipe(folder / "recipe.toml")
    plan = make_plan(make_request(recipe, {"target": name, "out": folder}))
    floating, quantized = _candidates(plan, report, artifact, folder)
    part = plan.data.validation if len(plan.data.validation) else plan.data.test
    inputs = [leaf.numpy() for leaf in leaves(part.some(SAMPLES).x)]
    made = folder / "diagnosis"
    made.mkdir(exist_ok=True)
    paths = [made / f"{name}-float.onnx", made / f"{name}-int8.onnx"]
    for path, candidate in zip(paths, (floating, quantized), strict=True):
        _export(candidate, path)
    pair = renamed(read_pair(*paths), _module_names(read_pair(*paths), report))
    return diagnose_pair(pair, inputs, artifact.layer_times, None, progress)


def _int8_file(report: Report, folder: Path, target: str | None) -> tuple[str, ArtifactReport]:
    names = [each.name for each in report.targets]
    if target is not None and target not in names:
        raise InputError(f"the run has no target '{target}'", where=str(folder),
                         allowed=", ".join(names))  # fmt: skip
    found = [
        (each.name, artifact)
        for each in report.targets
        if target in (None, each.name)
        for artifact in each.artifacts
        if artifact.precision == "int8"
    ]
    if not found:
        raise InputError("the run made no int8 file", where=str(folder),
                         hint="a recipe with a quantize stage makes one")  # fmt: skip
    timed = [each for each in found if each[1].layer_times is not None]
    return (timed or found)[0]


def _candidates(
    plan: Plan, report: Report, artifact: ArtifactReport, folder: Path
) -> tuple[Candidate, Candidate]:
    """The last float candidate before the int8 one, and the int8 one, as the run stored them."""
    floating, quantized = plan.start, None
    for stage in report.stages:
        if stage.line not in artifact.lineage:
            continue
        stored = folder / "stages" / f"{stage.kind}-{stage.key}"
        if not stored.is_dir():
            raise InputError(f"the run no longer has its {stage.kind} stage", where=str(stored),
                             hint="run edgekd compress again")  # fmt: skip
        candidate = load_candidate(plan, stored)
        if candidate.is_floating:
            floating = candidate
        elif candidate.form == "int8":
            quantized = candidate
    if quantized is None:
        raise InputError("the file comes from no stage of edgekd's own", where=str(folder),
                         hint="edgekd diagnose FLOAT INT8 --data DATA")  # fmt: skip
    return floating, quantized


def _export(candidate: Candidate, path: Path) -> None:
    from edgekd.backends.onnx.export import to_onnx
    from edgekd.quant.export import export_graph

    graph = candidate.module
    if candidate.form != "int8":
        graph = export_graph(candidate.module, candidate.example, "diagnose")
    write_beside(path, to_onnx(graph, candidate.example).SerializeToString())


def _module_names(pair: Pair, report: Report) -> dict[str, str]:
    """Names with dots for those of the exported files."""
    names = {layer.name.replace(".", "_"): layer.name for layer in report.layers.after}
    return {each.name: names.get(each.name.replace(".", "_"), each.name) for each in pair.layers}


def _diagnosed(
    pair: Pair, inputs: Sequence[np.ndarray], timed: bool, progress: Progress
) -> Diagnosis:
    times, float_times = _times(pair) if timed else (None, None)
    return diagnose_pair(pair, inputs, times, float_times, progress)


def _times(pair: Pair) -> tuple[LayerTimes | None, LayerTimes | None]:
    """The operators of the quantized and of the float file on this machine, briefly measured."""
    device = open_device("host")
    try:
        first, second = bench_files(
            [pair.quantized_path], None, device, quick=True, baseline=pair.floating_path,
            wanted=Wanted(per_layer=True),
        )  # fmt: skip
        return second.layers, first.layers
    except EdgekdError:  # the runtime is not here, or the file leaves a shape open
        return None, None
    finally:
        device.close()


def samples_of(data: Data, names: Sequence[str], where: str) -> list[np.ndarray]:
    """At most `SAMPLES` samples, one array for each input: by name, or in order.

    `data` is an .npz or .npy file, a folder of .npy files with one sample each, arrays, or a
    mapping. Of an .npz for training, the test part is taken. Raises `InputError` for other data.
    """
    arrays = _arrays(data)
    parts = [arrays]
    for start in ("x_validation", "x_test", "x_train"):
        own = {key.partition(".")[2] or key: value for key, value in arrays.items()
               if key.partition(".")[0] == start}  # fmt: skip
        parts = [own, *parts] if own and start != "x_train" else [*parts, own]
    names = [name.partition(":")[2] or name for name in names]
    for part in parts:
        if set(names) <= part.keys():
            return _checked([part[name] for name in names], where)
        if len(part) == len(names):
            return _checked(list(part.values()), where)
    found = ", ".join(f"{key} {value.shape}" for key, value in arrays.items())
    raise InputError(f"the data has {found or 'no array'}", where=where,
                     allowed=f"one array for each input: {', '.join(names)}")  # fmt: skip


def _checked(arrays: list[np.ndarray], where: str) -> list[np.ndarray]:
    if len({len(x) for x in arrays}) != 1 or not len(arrays[0]):
        lengths = ", ".join(str(len(x)) for x in arrays)
        raise InputError(f"inputs with {lengths} samples", where=where, allowed="as many for each")
    kept = [x[:SAMPLES] for x in arrays]
    if any(x.dtype.kind == "f" and not np.isfinite(x).all() for x in kept):
        raise InputError("the samples have NaN or infinite values", where=where)
    return [x.astype(np.float32) if x.dtype.kind == "f" else x for x in kept]


def _arrays(data: Data) -> dict[str, np.ndarray]:
    if isinstance(data, np.ndarray | torch.Tensor):
        return {"x": np.asarray(data)}
    if isinstance(data, Mapping):
        return {str(key): np.asarray(value) for key, value in data.items()}
    if not isinstance(data, str | Path):
        return {str(number): np.asarray(value) for number, value in enumerate(data)}
    path = Path(data)
    if path.is_dir():
        files = sorted(path.glob("*.npy"))[:SAMPLES]
        if not files:
            raise InputError("no .npy file in this folder", where=str(path),
                             allowed="one sample in each .npy, or an .npz file")  # fmt: skip
        return {"x": np.stack([_npy(file) for file in files])}
    return {"x": _npy(path)} if path.suffix.lower() == ".npy" else read_arrays(path)


def _npy(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable .npy file: {error}", where=str(path)) from None
    return found
