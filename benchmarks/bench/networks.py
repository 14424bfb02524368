"""The files that the comparisons here measure: a small residual network, float and int8."""

from pathlib import Path

import torch

from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.candidate import Candidate
from edgekd.models.resnet import resnet8
from edgekd.quant.calibration import calibrate
from edgekd.target import load_target


def make_files(folder: Path, widths: tuple[int, ...] = (32, 64, 128)) -> dict[str, Path]:
    """`fp32.onnx`, `int8.onnx`, `fp32.tflite` and `int8.tflite` of the same network, made once."""
    wanted = {f"{kind}.{end}": folder / f"{kind}.{end}"
              for kind in ("fp32", "int8") for end in ("onnx", "tflite")}  # fmt: skip
    if all(path.exists() for path in wanted.values()):
        return wanted
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = resnet8(channels=3, widths=widths).eval()
    x = torch.rand(32, 3, 32, 32)
    target = load_target("x86")
    candidates = {
        "fp32": Candidate(module, x[:1]),
        "int8": Candidate(calibrate(module, x[:1], x, target.quantization), x[:1], "int8"),
    }
    for kind, candidate in candidates.items():
        for end, backend in (("onnx", Onnx()), ("tflite", Tflite())):
            if wanted[f"{kind}.{end}"].exists():
                continue
            made = folder / f"made-{kind}-{end}"
            made.mkdir(exist_ok=True)
            (artifact,) = backend.compile(candidate, target, target.backends[end], made)
            artifact.path.rename(wanted[f"{kind}.{end}"])
    return wanted
