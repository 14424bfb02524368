"""A softmax of nearly equal values, whose integer kernel in ONNX Runtime overflows."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.backends.onnx.flat_softmax import part_flat_softmaxes

ROWS = 4


def softmax(length: int, step: float, known: bool = True) -> Any:
    """A softmax over `length` values on a grid of 0.001, quantized in steps of `step`."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "fine", "middle"], ["float"]),
        helper.make_node("Softmax", ["float"], ["shares"], axis=-1),
        helper.make_node("QuantizeLinear", ["shares", "step", "zero"], ["y"]),
    ]
    shape = (ROWS, length if known else "length")
    constants = {"fine": np.float32(1e-3), "middle": np.uint8(128),
                 "step": np.float32(step), "zero": np.uint8(0)}  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "softmax",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        value_info=[helper.make_tensor_value_info("shares", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


def steps_of(model: Any, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": x})[0].astype(int)


def right(length: int, step: float, x: np.ndarray) -> np.ndarray:
    powers = np.exp(x.astype(np.float64) * 1e-3)
    return np.clip(np.round(powers / powers.sum(1, keepdims=True) / step), 0, 255)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("length", "step"), [(79, 1 / 18183), (79, 1 / 4000), (8, 1 / 1900)])
def test_the_result_is_that_of_the_softmax(length, step, known):
    x = np.random.default_rng(0).integers(0, 256, (ROWS, length)).astype(np.uint8)
    model = softmax(length, step, known)
    part_flat_softmaxes(model)
    onnx.checker.check_model(model)
    assert np.abs(steps_of(model, x) - right(length, step, x)).max() <= 1


def test_a_softmax_with_large_values_stays_in_integers():
    model = softmax(79, 1 / 256)
    part_flat_softmaxes(model)
    assert [node.op_type for node in model.graph.node][1:] == ["Softmax", "QuantizeLinear"]


def test_the_kernel_of_this_release_still_needs_it():
    """Where this fails, ONNX Runtime has mended its kernel, and the module can go."""
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 79)).astype(np.uint8)
    assert not steps_of(softmax(79, 1 / 18183), x).any()
