"""Each operator of a converted ONNX file computes what ONNX Runtime does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import InputError
from edgekd.network.onnx_module.convert import module_of_onnx
from edgekd.network.onnx_module.coverage import covered

DRAW = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


IMAGE = (2, 4, 6, 6)

# Operator, the shape of its input, constants after it, attributes.
CASES: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Conv", IMAGE, [floats(8, 2, 3, 3), floats(8)], {"group": 2, "pads": [1, 1, 1, 1]}),
    ("Conv", IMAGE, [floats(8, 4, 3, 3)], {"pads": [0, 1, 1, 2], "strides": [2, 2]}),
    ("Conv", IMAGE, [floats(8, 4, 3, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", (2, 4, 9), [floats(8, 4, 3)], {"dilations": [2]}),
    ("ConvTranspose", IMAGE, [floats(4, 3, 3, 3), floats(3)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", IMAGE, [floats(4, 3, 3, 3)], {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("Gemm", (2, 4), [floats(4, 5), floats(5)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", (2, 4), [floats(5, 4)], {"transB": 1}),
    ("MatMul", (2, 3, 4), [floats(4, 5)], {}),
    ("MatMul", (2, 3, 4), [floats(2, 4, 5)], {}),
    ("BatchNormalization", IMAGE, [floats(4), floats(4), floats(4), np.abs(floats(4))], {}),
    ("LayerNormalization", (2, 3, 4), [floats(4), floats(4)], {"epsilon": 1e-3}),
    ("InstanceNormalization", IMAGE, [floats(4), floats(4)], {}),
    ("GroupNormalization", IMAGE, [floats(2), floats(2)], {"num_groups": 2}),
    ("PRelu", IMAGE, [floats(4, 1, 1)], {}),
    ("PRelu", (2, 4), [floats(4)], {}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", IMAGE, [],
     {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", IMAGE, [], {}),
    ("GlobalMaxPool", IMAGE, [], {}),
    ("Pad", IMAGE, [whole(0, 0, 1, 2, 0, 0, 0, 1), np.array(0.5, np.float32)], {}),
    ("Pad", IMAGE, [whole(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", IMAGE, [whole(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}),
    ("Resize", IMAGE, [floats(0), np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}),
    ("Resize", IMAGE, [floats(0), np.array([1, 1, 1.5, 2], np.float32)], {"mode": "linear"}),
    ("DepthToSpace", IMAGE, [], {"blocksize": 2}),
    ("DepthToSpace", IMAGE, [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", IMAGE, [], {"blocksize": 2}),
    ("Softmax", IMAGE, [], {"axis": 1}),
    ("LogSoftmax", (2, 5), [], {}),
    ("ReduceMean", IMAGE, [whole(2, 3)], {"keepdims": 0}),
    ("ReduceSum", IMAGE, [whole(1)], {}),
    ("ReduceMax", IMAGE, [whole(-1)], {}),
    ("ReduceL2", (2, 5), [whole(1)], {}),
    ("ReduceProd", (2, 5), [whole(1)], {}),
    ("ReduceLogSumExp", (2, 5), [whole(1)], {}),
    ("ArgMax", (2, 5), [], {"axis": 1, "keepdims": 0}),
    ("CumSum", (2, 5), [np.array(1, np.int64)], {}),
    ("Einsum", (2, 3, 4), [floats(4, 5)], {"equation": "bij,jk->bik"}),
    ("LpNormalization", (2, 5), [], {"axis": 1}),
    ("Flatten", IMAGE, [], {}),
    ("Reshape", IMAGE, [whole(0, -1)], {}),
    ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}),
    ("Unsqueeze", (2, 5), [whole(1, -1)], {}),
    ("Squeeze", (2, 1, 5, 1), [whole(1, 3)], {}),
    ("Slice", (2, 9), [whole(1), whole(8), whole(1), whole(2)], {}),
    ("Slice", (2, 9), [whole(-1), whole(-(2**62)), whole(1), whole(-2)], {}),
    ("Gather", (2, 9), [whole(3, -1)], {"axis": 1}),
    ("Gather", (2, 9), [np.array(4, np.int64)], {"axis": 1}),
    ("GatherElements", (2, 9), [np.array([[1, 3], [0, 8]])], {"axis": 1}),
    ("Expand", (2, 1, 5), [whole(1, 4, 1)], {}),
    ("Tile", (2, 5), [whole(1, 3)], {}),
    ("Concat", (2, 5), [floats(2, 3)], {"axis": 1}),
    ("Trilu", (2, 4, 4), [], {"upper": 0}),
    ("Clip", (2, 5), [np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}),
    ("Clip", (2, 5), [np.array(0, np.float32), np.array(6, np.float32)], {}),
    ("LeakyRelu", (2, 5), [], {"alpha": 0.2}),
    ("Elu", (2, 5), [], {}),
    ("Selu", (2, 5), [], {}),
    ("HardSigmoid", (2, 5), [], {}),
    ("HardSwish", (2, 5), [], {}),
    ("Gelu", (2, 5), [], {"approximate": "tanh"}),
    ("Mod", (2, 5), [floats(5)], {"fmod": 1}),
    ("Pow", (2, 5), [np.array(2, np.float32)], {}),
    ("Min", (2, 5), [floats(5)], {}),
    ("Mean", (2, 5), [floats(5)], {}),
    ("Div", (2, 5), [floats(5)], {}),
    ("Greater", (2, 5), [floats(5)], {}),
    ("Cast", (2, 5), [], {"to": TensorProto.INT64}),
    *[(op, (2, 5), [], {}) for op in
      ("Relu", "Sigmoid", "Tanh", "Abs", "Exp", "Neg", "Floor", "Ceil", "Round", "Erf", "Sin",
       "Cos", "Sign", "Softplus", "Softsign", "Mish", "Identity")],
]  # fmt: skip


def converted(model: Any, folder: Path) -> tuple[Any, Any]:
    """The session of a model's file, and its network."""
    onnx.save(model, folder / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(folder / "m.onnx"), options), module_of_onnx(
        folder / "m.onnx"
    )


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[str], constants: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "case",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def float_input(name: str, shape: tuple[Any, ...]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[3]}")
def test_an_operator_computes_what_onnx_runtime_does(case: Any, tmp_path: Path) -> None:
    op, shape, others, attributes = case
    constants = {f"c{number}": value for number, value in enumerate(others)}
    node = helper.make_node(op, ["x", *constants], ["y"], **attributes)
    model = model_of([node], [float_input("x", ("batch", *shape[1:]))], ["y"], constants)
    session, module = converted(model, tmp_path)
    x = floats(*shape)
    (expected,) = session.run(["y"], {"x": x})
    with torch.no_grad():
        found = module(torch.from_numpy(x))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_takes_and_gives_its_states(op, direction, tmp_path: Path) -> None:
    gates, count = {"LSTM": 4, "GRU": 3}[op], {"forward": 1, "bidirectional": 2}[direction]
    constants = {
        "w": floats(count, gates * 5, 3), "r": floats(count, gates * 5, 5),
        "b": floats(count, 2 * gates * 5),
    }  # fmt: skip
    states = ["h", "c"][: 2 if op == "LSTM" else 1]
    results = ["y", "hn", "cn"][: 1 + len(states)]
    options = {"linear_before_reset": 1} if op == "GRU" else {}
    node = helper.make_node(
        op,
        ["x", "w", "r", "b", "", *states],
        results,
        hidden_size=5,
        direction=direction,
        **options,
    )
    inputs = [float_input("x", (7, 2, 3)), *(float_input(s, (count, 2, 5)) for s in states)]
    session, module = converted(model_of([node], inputs, results, constants), tmp_path)
    feeds = {"x": floats(7, 2, 3), **{state: floats(count, 2, 5) for state in states}}
    expected = session.run(results, feeds)
    with torch.no_grad():
        found = module({name: torch.from_numpy(value) for name, value in feeds.items()})
    assert list(found) == results
    for name, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(found[name].numpy(), value, atol=2e-5, rtol=1e-4)


def test_a_shape_that_the_file_computes_stays_free(tmp_path: Path) -> None:
    """Shape, Gather, Concat and Reshape, for any batch size and through the exporter."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["list"]),
        helper.make_node("Concat", ["list", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense.weight"], ["product"]),
        helper.make_node("Add", ["dense.bias", "product"], ["y"]),
    ]
    constants = {
        "zero": np.array(0), "axes": whole(0), "rest": whole(12),
        "dense.weight": floats(12, 5), "dense.bias": floats(5),
    }  # fmt: skip
    model = model_of(nodes, [float_input("x", ("batch", 3, 4))], ["y"], constants)
    session, module = converted(model, tmp_path)
    program = torch.export.export(
        module, (torch.randn(2, 3, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    x = floats(5, 3, 4)
    for network in (module, program.module()):
        with torch.no_grad():
            found = network(torch.from_numpy(x))
        np.testing.assert_allclose(found.numpy(), session.run(None, {"x": x})[0], atol=1e-5)
    assert isinstance(module.get_submodule("dense"), torch.nn.Linear)


def test_a_file_for_one_sample_becomes_a_network_for_any_number(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "wanted"], ["split"]),
        helper.make_node("Concat", ["token", "split"], ["y"], axis=1),
    ]
    constants = {"wanted": whole(1, 3, 4), "token": floats(1, 1, 4)}
    session, module = converted(
        model_of(nodes, [float_input("x", (1, 12))], ["y"], constants), tmp_path
    )
    x = floats(3, 12)
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    np.testing.assert_array_equal(module(torch.from_numpy(x)).numpy(), expected)


def test_weights_that_two_nodes_share_are_one_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "conv.weight"], ["y"], pads=[1, 1, 1, 1]),
    ]
    constants = {"conv.weight": floats(4, 4, 3, 3)}
    session, module = converted(
        model_of(nodes, [float_input("x", ("n", *IMAGE[1:]))], ["y"], constants), tmp_path
    )
    assert [name for name, _ in module.named_parameters()] == ["conv.weight"]
    x = floats(*IMAGE)
    with torch.no_grad():
        found = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, session.run(None, {"x": x})[0], rtol=1e-3, atol=1e-3)


def test_indices_look_up_an_embedding(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["words.weight", "ids"], ["y"])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ("n", 3))
    session, module = converted(
        model_of([node], [ids], ["y"], {"words.weight": floats(9, 4)}), tmp_path
    )
    assert isinstance(module.get_submodule("words"), torch.nn.Embedding)
    x = np.array([[0, 8, 3]])
    np.testing.assert_array_equal(
        module(torch.from_numpy(x)).detach().numpy(), session.run(None, {"ids": x})[0]
    )


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Fancy", ["x"], ["y"], domain="com.example"),
    ]
    model = model_of(nodes, [float_input("x", (1, 4))], ["places", "y"], {})
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputError) as caught:
        module_of_onnx(tmp_path / "m.onnx")
    assert "without a counterpart in PyTorch: 1 NonZero, 1 com.example.Fancy" in str(caught.value)
    assert {"Conv", "MatMul", "LSTM", "Resize"} <= set(covered())
    assert "NonZero" not in covered()


def test_a_quantized_file_is_refused(tmp_path: Path) -> None:
    constants = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    onnx.save(model_of([node], [float_input("x", (1, 4))], ["y"], constants), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="already quantized: it has QuantizeLinear"):
        module_of_onnx(tmp_path / "m.onnx")


def test_a_reshape_that_flattens_names_no_number_of_channels(tmp_path: Path) -> None:
    """So that pruning may remove some of them; another reshape stays what it is."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "flat"], ["b"]),
        helper.make_node("Reshape", ["b", "halves"], ["y"]),
    ]
    constants = {"flat": whole(-1, 24), "halves": whole(-1, 2, 12)}
    model = model_of(nodes, [float_input("x", ("n", 6, 2, 2))], ["y"], constants)
    session, module = converted(model, tmp_path)
    assert [step.node.op for step in module.steps] == ["Relu", "Flatten", "Reshape"]
    x = floats(3, 6, 2, 2)
    np.testing.assert_array_equal(
        module(torch.from_numpy(x)).numpy(), session.run(None, {"x": x})[0]
    )
