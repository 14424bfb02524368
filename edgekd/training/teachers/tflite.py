"""A TFLite file as a teacher, through LiteRT on the CPU; quantized inputs and outputs too."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.errors import InputError, MissingPackage, first_line
from edgekd.training.teachers.black_box import Predictor, batch_of, in_batches
from edgekd.training.teachers.layout import inputs_for, outputs_as_tree
from edgekd.values.tree import Tree


def open_tflite(path: Path, example: Tree, where: str) -> Predictor:
    """A predictor of the file's outputs, for samples like `example`; InputError if unusable."""
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
    shapes = [[None if s < 0 else int(s) for s in each["shape_signature"]] for each in inputs]
    wanted = {each["name"]: shape[1:] for each, shape in zip(inputs, shapes, strict=True)}
    arrange = inputs_for(wanted, example, str(path))
    names = [each["name"] for each in outputs]

    def predict(x: Tree) -> Tree:
        arrays = [
            _quantized(value.numpy(), each) for value, each in zip(arrange(x), inputs, strict=True)
        ]
        now = [tuple(each["shape"]) for each in interpreter.get_input_details()]
        if now != [values.shape for values in arrays]:
            for values, each in zip(arrays, inputs, strict=True):
                interpreter.resize_tensor_input(each["index"], values.shape)
            interpreter.allocate_tensors()
        for values, each in zip(arrays, inputs, strict=True):
            interpreter.set_tensor(each["index"], values)
        interpreter.invoke()
        found = [_real(interpreter.get_tensor(each["index"]), each) for each in outputs]
        return outputs_as_tree(names, [torch.from_numpy(each) for each in found])

    floor = max(float(outputs[0]["quantization"][0]) / 2, 1e-7)
    return Predictor(in_batches(predict, batch_of(shapes)), floor)


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
        return np.asarray(values, None if values.dtype.kind in "iub" else np.float32)
    return np.asarray((np.asarray(values, np.float32) - zero_point) * scale, np.float32)
