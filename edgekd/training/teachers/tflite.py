"""A TFLite file as a teacher, through LiteRT on the CPU; quantized inputs and outputs too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.errors import InputError, MissingPackage, first_line
from edgekd.training.teachers.black_box import Predictor, in_batches
from edgekd.training.teachers.layout import arrangement


def open_tflite(path: Path, sample: Sequence[int], where: str) -> Predictor:
    """A predictor for the file's one output, for samples of that shape; InputError if unusable."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise MissingPackage("ai-edge-litert", "tflite", where=where) from None

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        message = first_line(error)
        raise InputError(f"not a TFLite file: {message}", where=str(path)) from None
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"{len(inputs)} inputs and {len(outputs)} outputs",
            where=str(path),
            allowed="one input and one output",
        )
    signature = [int(size) for size in inputs[0]["shape_signature"]]
    shape = [None if size < 0 else size for size in signature]
    arrange = arrangement(shape[1:], sample, str(path))

    def predict(x: Tensor) -> Tensor:
        values = _quantized(arrange(x).numpy(), inputs[0])
        index = inputs[0]["index"]
        if tuple(interpreter.get_input_details()[0]["shape"]) != values.shape:
            interpreter.resize_tensor_input(index, values.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(index, values)
        interpreter.invoke()
        return torch.from_numpy(_real(interpreter.get_tensor(outputs[0]["index"]), outputs[0]))

    floor = max(float(outputs[0]["quantization"][0]) / 2, 1e-7)
    return Predictor(in_batches(predict, shape[0]), floor)


def _quantized(values: NDArray[Any], details: dict[str, Any]) -> NDArray[Any]:
    scale, zero_point = details["quantization"]
    if not scale:
        return np.asarray(values, details["dtype"])
    limits = np.iinfo(details["dtype"])
    steps = np.clip(np.round(values / scale) + zero_point, limits.min, limits.max)
    return np.asarray(steps, details["dtype"])


def _real(values: NDArray[Any], details: dict[str, Any]) -> NDArray[Any]:
    scale, zero_point = details["quantization"]
    if not scale:
        return np.asarray(values, np.float32)
    return np.asarray((np.asarray(values, np.float32) - zero_point) * scale, np.float32)
