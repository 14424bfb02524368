"""An ONNX file as a teacher, through ONNX Runtime on the CPU."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgekd.errors import InputError, MissingPackage
from edgekd.training.teachers.black_box import Predictor, in_batches
from edgekd.training.teachers.layout import arrangement

FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def open_onnx(path: Path, sample: Sequence[int], where: str) -> Predictor:
    """A predictor for the file's one output, for samples of that shape; InputError if unusable."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingPackage("onnxruntime", "onnx", where=where) from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise InputError(
            f"not an ONNX file that ONNX Runtime {onnxruntime.__version__} loads: {error}",
            where=str(path),
        ) from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"{len(inputs)} inputs and {len(outputs)} outputs",
            where=str(path),
            allowed="one input and one output",
        )
    if inputs[0].type not in FLOATS:
        raise InputError(
            f"its input is {inputs[0].type}", where=str(path), allowed=", ".join(FLOATS)
        )
    dtype, name = FLOATS[inputs[0].type], inputs[0].name
    shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
    if not shape:
        raise InputError("its input has no shape", where=str(path), allowed="(B, ...)")
    arrange = arrangement(shape[1:], sample, str(path))

    def predict(x: Tensor) -> Tensor:
        values = arrange(x).numpy().astype(dtype)
        return torch.from_numpy(session.run(None, {name: values})[0])

    return Predictor(in_batches(predict, shape[0]))
