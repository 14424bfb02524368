"""A TorchScript file as a teacher.

`torch.jit.load` runs no Python: it compiles the archive's code for PyTorch's own interpreter, and
reads its tensors with an unpickler that knows tensors and plain containers only. But that code may
call operators that read or write files, also while it is loaded, so it is inspected first.
"""

import io
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from edgekd.errors import InputError, first_line
from edgekd.store import read_errors
from edgekd.training.teachers.black_box import Predictor

FILE_OPERATORS = re.compile(r"\b(save|from_file|_load)\s*\(")
OPERATORS = re.compile(r"\bops\.(\w+)")
CLASSES = re.compile(r"\b__torch__\.torch\.classes\.(\w+)")
KNOWN = ("aten", "prim", "prims", "quantized", "torchvision")
"""Namespaces whose operators compute tensors from tensors and reach nothing else."""


def open_torchscript(path: Path) -> Predictor:
    """A predictor for a program with one input and one output. Raises `InputError` if the file is
    not TorchScript, is truncated, or calls operators that reach outside of it."""
    with read_errors(path):
        raw = path.read_bytes()
    _inspect(raw, str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            module = torch.jit.load(io.BytesIO(raw), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InputError(
            f"PyTorch {torch.__version__} can't load it: {first_line(error)[:200]}",
            where=str(path),
        ) from None

    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            output = module(x)
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise InputError(f"its output is a {kind}", where=str(path), allowed="one tensor")
        return output

    return Predictor(predict)


def _inspect(raw: bytes, where: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = [name for name in archive.namelist() if re.search(r"/code/.*\.py$", name)]
            code = "\n".join(archive.read(name).decode() for name in names)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise InputError("not a complete TorchScript file", where=where) from None
    if not names:
        raise InputError(
            "it has no code, so it is not a TorchScript program",
            where=where,
            hint="a checkpoint goes with the network's source: weights = ...",
        )
    used = (*OPERATORS.findall(code), *CLASSES.findall(code))
    strange = [name for name in used if name not in KNOWN]
    found = FILE_OPERATORS.search(code)
    if found or strange:
        what = f"'{found.group(1)}', which can reach files" if found else f"'{strange[0]}'"
        raise InputError(
            f"its code calls {what}",
            where=where,
            allowed=f"PyTorch's operators on tensors ({', '.join(KNOWN)})",
        )
