"""The quantized tensors inside a TFLite file, as TensorFlow's reference kernels compute them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.formats.tflite_inputs import as_tflite_input
from edgekd.values.inner_tensor import InnerTensor


def quantized_tensors(path: Path, inputs: Sequence[np.ndarray]) -> list[InnerTensor]:
    """Every quantized activation of a TFLite file, run with TensorFlow's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    entries = interpreter.get_input_details()
    for entry, x in zip(entries, inputs, strict=True):
        interpreter.set_tensor(entry["index"], as_tflite_input(x, entry))
    interpreter.invoke()
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    order = [int(entry["index"]) for entry in entries]
    for op in interpreter._get_ops_details():
        order += [int(index) for index in op["outputs"]]
    seen = []
    for index in dict.fromkeys(order):
        scale, zero_point = details[index]["quantization"]
        if scale and details[index]["dtype"] in (np.int8, np.uint8, np.int16):
            tensor = interpreter.get_tensor(index).astype(np.float64)
            seen.append(
                InnerTensor(details[index]["name"], (tensor - zero_point) * scale, float(scale))
            )
    return seen
