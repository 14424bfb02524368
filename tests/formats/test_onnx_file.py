import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import InputError
from edgekd.formats.onnx_file import external_files, read_onnx
from edgekd.formats.onnx_shapes import with_shapes


def _model(batch=1):
    """x -> QuantizeLinear -> DequantizeLinear -> Gemm with a weight in a Constant node."""
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "w")),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Gemm", ["d", "w", "b"], ["y"], name="gemm"),
    ]
    constants = [
        numpy_helper.from_array(np.asarray(0.5, np.float32), "s"),
        numpy_helper.from_array(np.asarray(3, np.int8), "z"),
        numpy_helper.from_array(np.zeros(2, np.float32), "b"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "model.onnx"
    place.write_bytes(_model().SerializeToString())
    return place


def test_constant_nodes_count_as_parameters_like_initializers(path):
    graph = read_onnx(path)
    assert graph.parameter_bytes == 24 + 4 + 1 + 8
    assert [op.op for op in graph.ops] == ["QuantizeLinear", "DequantizeLinear", "Gemm"]
    assert graph.inputs == ("x",)
    assert graph.counts == {"QuantizeLinear": 1, "DequantizeLinear": 1, "Gemm": 1}
    assert graph.facts["opset"] == 20


def test_a_quantized_tensor_carries_its_scale_and_zero_point(path):
    tensor = read_onnx(path).tensors["q"]
    assert (tensor.dtype, tensor.scales, tensor.zero_points) == ("int8", (0.5,), (3,))


def test_missing_shapes_are_inferred_for_a_batch_of_one(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(_model(batch="N").SerializeToString())
    graph = read_onnx(path)
    assert graph.tensors["x"].shape == (-1, 3)
    assert graph.tensors["d"].bytes is None
    sized = with_shapes(graph, path)
    assert sized.tensors["d"].shape == (1, 3)
    assert sized.tensors["y"].bytes == 8


def test_external_data_counts_and_must_lie_beside_the_file(tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save_model(
        _model(),
        str(path),
        save_as_external_data=True,
        location="big.data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert read_onnx(path).facts["external_bytes"] == 24 + 4 + 1 + 8
    (tmp_path / "big.data").unlink()
    with pytest.raises(InputError, match=r"'big\.data' is not beside it"):
        read_onnx(path)
    assert external_files(path) == (tmp_path / "big.data",)


def test_a_file_that_keeps_its_weights_to_itself_has_no_external_files(path):
    assert external_files(path) == ()


@pytest.mark.parametrize("content", [b"not a model at all", b"PK\x03\x04" * 20, b"\x00" * 64])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an ONNX file, or truncated"):
        read_onnx(path)


def test_truncations_and_mutations_end_in_an_input_error_or_in_a_graph(path):
    content = path.read_bytes()
    dice = random.Random(2)
    refused = 0
    for turn in range(600):
        mutant = bytearray(content[: dice.randrange(1, len(content))] if turn % 4 == 0 else content)
        for _ in range(dice.choice([1, 3, 20]) if turn % 4 else 0):
            mutant[dice.randrange(len(mutant))] = dice.randrange(256)
        path.write_bytes(mutant)
        try:
            external_files(path)
            read_onnx(path)
        except InputError:
            refused += 1
    assert refused > 150
