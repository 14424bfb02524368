"""Files with several inputs and outputs, of several types: what goes in and what comes back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.devices import agent
from edgekd.devices.session import AgentDevice
from edgekd.errors import InputError
from edgekd.values.artifact import Artifact, TensorInfo

TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)


@pytest.fixture
def embedding(tmp_path: Path, make_artifact: Callable[..., Artifact]) -> Artifact:
    """Looks `ids` up, multiplies with `mask`; gives the vectors, the ids plus one and the mask."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Where", ["mask3", "rows", "zero"], ["vectors"]),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["mask3"]),
        helper.make_node("Add", ["ids", "one"], ["next"]),
        helper.make_node("Not", ["mask"], ["hidden"]),
    ]
    graph = helper.make_graph(
        [nodes[2], nodes[0], nodes[1], *nodes[3:]],
        "embedding",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ("batch", 3)),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ("batch", 3)),
        ],
        [
            helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ("batch", 3, 4)),
            helper.make_tensor_value_info("next", TensorProto.INT64, ("batch", 3)),
            helper.make_tensor_value_info("hidden", TensorProto.BOOL, ("batch", 3)),
        ],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
            numpy_helper.from_array(np.array([2], np.int64), "axis"),
        ],
    )
    path = tmp_path / "embedding.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    inputs = (
        TensorInfo(name="ids", shape=(-1, 3), dtype="int64"),
        TensorInfo(name="mask", shape=(-1, 3), dtype="bool"),
    )
    return make_artifact(path, "onnx", "onnxruntime", inputs=inputs)


def test_every_output_comes_back_with_its_own_type(host: AgentDevice, embedding: Artifact) -> None:
    ids = np.random.default_rng(0).integers(0, 10, (70, 3))  # more than one batch
    mask = ids % 2 == 0
    vectors, following, hidden = host.infer(embedding, [ids, mask], {})
    np.testing.assert_array_equal(vectors, TABLE[ids] * mask[:, :, None])
    np.testing.assert_array_equal(following, ids + 1)
    np.testing.assert_array_equal(hidden, ~mask)
    assert [y.dtype.name for y in (vectors, following, hidden)] == ["float32", "int64", "bool"]


def test_inputs_are_fed_in_the_order_that_the_artifact_lists(
    host: AgentDevice, embedding: Artifact
) -> None:
    swapped = embedding.model_copy(update={"inputs": embedding.inputs[::-1]})
    ids, mask = np.array([[1, 2, 3]]), np.array([[True, False, True]])
    vectors, *_ = host.infer(swapped, [mask, ids], {})
    np.testing.assert_array_equal(vectors, TABLE[ids] * mask[:, :, None])


def test_outputs_are_given_in_the_order_that_the_artifact_lists(
    host: AgentDevice, embedding: Artifact
) -> None:
    outputs = [("hidden", "bool"), ("vectors", "float32"), ("next", "int64")]
    infos = tuple(TensorInfo(name=name, shape=(-1, 3), dtype=dtype) for name, dtype in outputs)
    other = embedding.model_copy(update={"outputs": infos})
    found = host.infer(other, [np.array([[1, 2, 3]]), np.ones((1, 3), bool)], {})
    assert [y.dtype.name for y in found] == [dtype for _, dtype in outputs]


def test_integers_of_another_type_are_cast_only_if_they_fit(
    host: AgentDevice, embedding: Artifact
) -> None:
    mask = np.ones((1, 3), np.int32)
    vectors, *_ = host.infer(embedding, [np.array([[1, 2, 3]], np.int16), mask], {})
    np.testing.assert_array_equal(vectors, TABLE[[[1, 2, 3]]])
    with pytest.raises(InputError, match=r"its input 'ids' takes int64, but got 0\.5"):
        host.infer(embedding, [np.array([[0.5, 1, 2]], np.float32), mask], {})
    with pytest.raises(InputError, match=r"its input 'mask' takes bool, but got 2"):
        host.infer(embedding, [np.array([[1, 2, 3]]), 2 * mask], {})


def test_a_wrong_number_of_inputs_or_samples_is_refused(
    host: AgentDevice, embedding: Artifact
) -> None:
    ids = np.zeros((4, 3), np.int64)
    with pytest.raises(InputError, match=r"it has 2 inputs \(ids, mask\), but got 1 arrays"):
        host.infer(embedding, [ids], {})
    with pytest.raises(InputError, match=r"different numbers of samples: \[4, 5\]"):
        host.infer(embedding, [ids, np.ones((5, 3), bool)], {})
    with pytest.raises(InputError, match="no samples"):
        host.infer(embedding, [ids[:0], np.ones((0, 3), bool)], {})


def infos(*shapes: tuple[int, ...]) -> list[dict[str, object]]:
    return [{"name": f"x{i}", "shape": list(shape)} for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("shapes", "lengths", "rows"),
    [
        ([(-1, 3), (-1, 3)], [100, 100], [64, 64]),
        ([(4, 3), (4, 3)], [10, 10], [4, 4]),  # the last of three runs is padded
        ([(1, 80), (2, 1, 16)], [5, 10], [1, 2]),  # a state with the layers first
        ([(1, 80), ()], [5, 5], [1, 1]),  # a scalar beside it
        ([(4, 3), (-1, 3)], [10, 10], [4, 4]),  # an open size follows the fixed one
    ],
)
def test_rows_of_one_run_follow_from_the_shapes(shapes, lengths, rows) -> None:
    assert agent.rows_per_run(infos(*shapes), lengths, 64) == rows


def test_a_state_goes_in_and_out_of_a_streaming_file(
    host: AgentDevice, tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    """One step of a sum with decay: two layers of state for each frame, and a scalar rate."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["state", "rate"], ["old"]),
            helper.make_node("Add", ["old", "frame"], ["state_out"]),
            helper.make_node("ReduceSum", ["state_out"], ["total"], keepdims=0),
        ],
        "step",
        [
            helper.make_tensor_value_info("frame", TensorProto.FLOAT, (1, 3)),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, (2, 3)),
            helper.make_tensor_value_info("rate", TensorProto.FLOAT, ()),
        ],
        [
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, (2, 3)),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ()),
        ],
    )
    path = tmp_path / "step.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    inputs = tuple(
        TensorInfo(name=name, shape=shape, dtype="float32")
        for name, shape in (("frame", (1, 3)), ("state", (2, 3)), ("rate", ()))
    )
    file = make_artifact(path, "onnx", "onnxruntime", inputs=inputs)
    draw = np.random.default_rng(0)
    frames, states = draw.normal(size=(5, 3)), draw.normal(size=(10, 3))
    rates = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
    after, total = host.infer(file, [frames, states, rates], {})
    expected = states.reshape(5, 2, 3) * rates[:, None, None] + frames[:, None]
    np.testing.assert_allclose(after, expected.reshape(10, 3), atol=1e-5)
    np.testing.assert_allclose(total, expected.sum((1, 2)), atol=1e-4)
