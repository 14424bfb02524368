"""The quantized tensors inside an ONNX file, as ONNX Runtime computes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.formats.onnx_steps import unfold_steps
from edgekd.values.inner_tensor import InnerTensor


def quantized_tensors(path: Path, inputs: Sequence[np.ndarray]) -> list[InnerTensor]:
    """The output of every QuantizeLinear of an ONNX file for its inputs, by making it an
    output of the model."""
    import onnx
    import onnxruntime

    model = unfold_steps(onnx.load(path))
    constants = _constants(model)
    quantizers = [
        node
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
        and node.input[0] not in constants
        and np.size(constants.get(node.input[1], ())) == 1
    ]
    outputs = {output.name for output in model.graph.output}
    for node in quantizers:
        if node.output[0] not in outputs:
            kind = onnx.helper.np_dtype_to_tensor_dtype(_zero_point(node, constants).dtype)
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(node.output[0], kind, None)
            )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [node.output[0] for node in quantizers]
    named = [value.name for value in session.get_inputs()]
    tensors = session.run(names, dict(zip(named, inputs, strict=True)))
    sigmoids = {node.output[0] for node in model.graph.node if node.op_type == "Sigmoid"}
    made = {node.output[0] for node in quantizers if node.input[0] in sigmoids}
    readers = {
        node.input[0]: node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in made
    }
    return [
        _dequantized(node, readers.get(node.output[0], node), tensor, constants)
        for node, tensor in zip(quantizers, tensors, strict=True)
    ]


def _constants(model: Any) -> dict[str, np.ndarray]:
    """Every initializer and constant of a model, by name."""
    from onnx import numpy_helper

    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def _dequantized(
    node: Any, reader: Any, tensor: np.ndarray, constants: dict[str, np.ndarray]
) -> InnerTensor:
    """The output of a QuantizeLinear on the grid of the operator that reads it: the integers of a
    tanh are made by a sigmoid on another grid."""
    scale = float(np.asarray(constants[reader.input[1]]).reshape(-1)[0])
    zero_point = int(_zero_point(reader, constants).reshape(-1)[0])
    return InnerTensor(node.output[0], (tensor.astype(np.float64) - zero_point) * scale, scale)


def _zero_point(node: Any, constants: dict[str, np.ndarray]) -> np.ndarray:
    if len(node.input) > 2 and node.input[2]:
        return np.atleast_1d(constants[node.input[2]])
    return np.zeros(1, np.uint8)
