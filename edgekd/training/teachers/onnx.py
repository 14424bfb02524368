"""An ONNX file as a teacher, through ONNX Runtime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.errors import InputError, MissingPackage
from edgekd.training.teachers.black_box import Predictor, batch_of, in_batches
from edgekd.training.teachers.layout import inputs_for, outputs_as_tree
from edgekd.values.tree import Tree

TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(bool)": "bool",
}  # fmt: skip


def open_onnx(path: Path, example: Tree, where: str) -> Predictor:
    """A predictor of the file's outputs, for samples like `example`; InputError if unusable."""
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
    for each in (*inputs, *outputs):
        if each.type not in TYPES:
            raise InputError(
                f"'{each.name}' is {each.type}", where=str(path), allowed=", ".join(TYPES)
            )
    shapes = {each.name: _shape(each, path) for each in inputs}
    arrange = inputs_for({name: shape[1:] for name, shape in shapes.items()}, example, str(path))
    names = [each.name for each in outputs]

    def predict(x: Tree) -> Tree:
        arrays = [
            value.numpy().astype(TYPES[each.type])
            for value, each in zip(arrange(x), inputs, strict=True)
        ]
        found = session.run(names, dict(zip(shapes, arrays, strict=True)))
        return outputs_as_tree(names, [torch.from_numpy(np.asarray(each)) for each in found])

    return Predictor(in_batches(predict, batch_of(list(shapes.values()))))


def _shape(value: Any, path: Path) -> list[int | None]:
    shape = [size if isinstance(size, int) else None for size in value.shape]
    if not shape:
        raise InputError(
            f"its input '{value.name}' has no shape", where=str(path), allowed="(B, ...)"
        )
    return shape
