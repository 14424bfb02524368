"""The diagnosis of files: a float one and its quantized counterpart, which edgekd need not have
made, or a float ONNX file, which is calibrated first as a target wants it."""

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
from edgekd.measure.diagnosis.pair import Pair, read_pair
from edgekd.measure.layer_times import LayerTimes
from edgekd.values.backend_lookup import backend_info, backend_of
from edgekd.values.progress import Progress, silent
from edgekd.values.target import Target, load_target

SAMPLES = 64
Data = Path | Sequence[np.ndarray] | Mapping[str, Any] | np.ndarray


def diagnose_files(
    floating: Path,
    quantized: Path | None,
    data: Data | None,
    target: Target | None = None,
    *,
    timed: bool = True,
    progress: Progress = silent,
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


def _diagnosed(
    pair: Pair, inputs: Sequence[np.ndarray], timed: bool, progress: Progress
) -> Diagnosis:
    times, float_times = _times(pair) if timed else (None, None)
    kind = "tflite" if pair.quantized_path.suffix.lower() == ".tflite" else "onnx"
    wide = backend_info(backend_of(kind)).wide_cost
    return diagnose_pair(pair, inputs, times, float_times, progress, wide)


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
