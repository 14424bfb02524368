"""How large an index into a model's tables may be, read from the file."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tflite_files import O, T, tflite

from edgekd.formats.index_bounds import index_bounds
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.tflite import read_tflite


def test_the_smallest_table_bounds_an_input_of_an_onnx_file(tmp_path):
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "wide"], ["a"]),
        helper.make_node("Reshape", ["wide", "flat"], ["list"]),
        helper.make_node("Gather", ["turned", "list"], ["b"], axis=1),
        helper.make_node("Identity", ["other"], ["c"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tables",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, (1, 4)),
            helper.make_tensor_value_info("other", TensorProto.INT64, (1, 4)),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ab"],
        [
            numpy_helper.from_array(np.zeros((50, 8), np.float32), "words"),
            numpy_helper.from_array(np.zeros((2, 30), np.float32), "turned"),
            numpy_helper.from_array(np.array([-1]), "flat"),
        ],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert index_bounds(read_onnx(tmp_path / "m.onnx")) == {"ids": (0, 29)}


def test_a_gather_of_a_tflite_file_bounds_its_input(tmp_path):
    tensors = [
        T((1, 4), (), dtype="int32", name="ids"),
        T((20, 3), (), 0, np.zeros((20, 3)), "float32"),
        T((1, 4, 3), (), dtype="float32"),
    ]
    gather = O("GATHER", [1, 0], [2], {"axis": 0}, "GatherOptions")
    (tmp_path / "m.tflite").write_bytes(tflite(tensors, [gather], [0], [2]))
    assert index_bounds(read_tflite(tmp_path / "m.tflite")) == {"ids": (0, 19)}


def test_columns_of_ids_are_bound_by_the_smallest_of_their_tables(tmp_path):
    nodes = [
        helper.make_node("Gather", ["ids", "second"], ["hours"], axis=1),
        helper.make_node("Slice", ["ids", "zero", "one", "one"], ["users"]),
        helper.make_node("Gather", ["day", "hours"], ["a"]),
        helper.make_node("Gather", ["names", "users"], ["b"]),
    ]
    tables = {"day": np.zeros((24, 2), np.float32), "names": np.zeros((400, 2), np.float32)}
    ends = {"second": np.array(1), "zero": np.array([0]), "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "columns",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 2))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ab"],
        [numpy_helper.from_array(value, name) for name, value in {**tables, **ends}.items()],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert index_bounds(read_onnx(tmp_path / "m.onnx")) == {"ids": (0, 23)}


def test_an_input_that_is_the_table_itself_has_no_bounds(tmp_path):
    tensors = [
        T((4, 3), (), dtype="int32", name="rows"),
        T((2,), (), 0, [0, 1], "int32"),
        T((2, 3), (), dtype="int32"),
    ]
    gather = O("GATHER", [0, 1], [2], {"axis": 0}, "GatherOptions")
    (tmp_path / "m.tflite").write_bytes(tflite(tensors, [gather], [0], [2]))
    assert index_bounds(read_tflite(tmp_path / "m.tflite")) == {}
