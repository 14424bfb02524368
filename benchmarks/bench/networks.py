"""The files that the comparisons here measure: a small residual network, float and int8."""

from pathlib import Path

import torch

from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.models.resnet import resnet8
from edgekd.quant.calibration import calibrate
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


def make_files(folder: Path, *names: str) -> dict[str, Path]:
    """Of `fp32.onnx`, `int8.onnx`, `fp32.tflite` and `int8.tflite` those that are named, all of the
    same network; what is there already is kept."""
    wanted = {name: folder / name for name in names}
    if all(path.exists() for path in wanted.values()):
        return wanted
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = resnet8(channels=3, widths=(32, 64, 128)).eval()
    x = torch.rand(32, 3, 32, 32)
    target = load_target("x86")
    for name, path in wanted.items():
        if path.exists():
            continue
        kind, end = name.split(".")
        backend = {"onnx": Onnx, "tflite": Tflite}[end]()
        made = folder / f"made-{kind}-{end}"
        made.mkdir(exist_ok=True)
        candidate = Candidate(module, x[:1])
        if kind == "int8":
            graph = calibrate(module, x[:1], x, target.quantization)
            candidate = Candidate(graph, x[:1], "int8")
        (artifact,) = backend.compile(candidate, target, target.backends[end], made)
        artifact.path.rename(path)
    return wanted
