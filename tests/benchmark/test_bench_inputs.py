"""Files with several inputs, with indices and with several signatures, measured for real."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tflite_files import G, O, T, tflite_of

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.options import parse_range
from edgekd.benchmark.text import bench_lines
from edgekd.devices import agent
from edgekd.devices.opening import open_device
from edgekd.errors import InputError
from edgekd.formats.tflite import read_tflite

QUICK = Wanted(options={"protocol": {"seconds": 0.01, "runs": 3, "windows": 1, "window_s": 0.01}})


@pytest.fixture
def device():
    device = open_device("host")
    yield device
    device.close()


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    """Twelve rows, looked up by `ids`; `mask` is added to them."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Cast", ["mask"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["rows", "float"], ["y"]),
        ],
        "lookup",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ("batch", 6)),
            helper.make_tensor_value_info("mask", TensorProto.INT64, ("batch", 6)),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 6)),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ("batch", 6)),
        ],
        [numpy_helper.from_array(np.zeros(12, np.float32), "table")],
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "lookup.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def wanted(*ranges: str, signature: str = "") -> Wanted:
    options = {**QUICK.options, **({"signature": signature} if signature else {})}
    return Wanted(options=options, ranges=tuple(map(parse_range, ranges)))


@pytest.mark.parametrize(
    ("text", "low", "high"), [("ids=0..30521", 0, 30521), ("x=-1.5..2e3", -1.5, 2000)]
)
def test_a_range_is_read(text: str, low: float, high: float) -> None:
    found = parse_range(text)
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize("text", ["ids", "ids=3", "ids=5..1", "ids=a..b", "=0..1", "ids=0...3"])
def test_what_is_not_a_range_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_range(text)
    assert caught.value.where == "--input"
    assert "LOW..HIGH" in caught.value.allowed


def test_indices_stay_within_the_table_that_they_look_up(device, lookup: Path) -> None:
    (result,) = bench_files([lookup], None, device, quick=True, wanted=wanted("mask=1..1"))
    assert "input 'ids' indexes a table: 0 to 11 are drawn" in result.notes
    assert not any("mask' is" in note for note in result.notes)
    text = "\n".join(bench_lines([result]))
    assert "takes ids: int64 ?x6, mask: int64 ?x6; gives y: float32 ?x6, rows" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ids=0..12", "indexes a table of 12 rows"),
        ("mask=0.5..1", "takes whole numbers"),
        ("mask=0..1e30", "is int64"),
        ("masc=0..1", "none of the files has an input 'masc'"),
    ],
)
def test_a_range_that_the_input_cannot_take_is_refused(device, lookup, text, message) -> None:
    with pytest.raises(InputError, match=message):
        bench_files([lookup], None, device, quick=True, wanted=wanted(text))


def test_values_are_drawn_from_the_range_that_was_given() -> None:
    model = agent.Model()
    model.inputs = [
        {"name": "ids", "shape": [1000], "dtype": "int32"},
        {"name": "x", "shape": [1000], "dtype": "float32"},
        {"name": "q", "shape": [1000], "dtype": "int8", "scale": 0.5, "zero_point": 3},
    ]
    model.ranges = {"ids": [7, 9], "x": [2.0, 3.0], "q": [-1.0, 1.0]}
    ids, x, q = agent.random_inputs(model, 0)
    assert (ids.dtype.name, set(ids.tolist())) == ("int32", {7, 8, 9})
    assert 2.0 <= x.min() < 2.1 < 2.9 < x.max() <= 3.0
    assert (q.dtype.name, set(q.tolist())) == ("int8", {1, 2, 3, 4, 5})


def test_each_column_of_a_table_of_ids_has_its_own_range() -> None:
    model = agent.Model()
    model.inputs = [
        {"name": "ids", "shape": [500, 3], "dtype": "int64"},
        {"name": "words", "shape": [500, 2], "dtype": "int64"},
    ]
    model.ranges = {"ids": [[0, 5, 2], [1, 5, 4]], "words": [[0, 5, 2], [1, 5, 4]]}
    ids, words = agent.random_inputs(model, 0)
    assert [set(column.tolist()) for column in ids.T] == [{0, 1}, {5}, {2, 3, 4}]
    assert set(words.flatten().tolist()) == {0, 1, 2, 3, 4, 5}  # another length of a sequence


@pytest.fixture
def two_signatures(tmp_path: Path) -> Path:
    graphs = [
        G([T((1, size), 0.5), T((1, size), 0.5)], [O("RELU", [0], [1])], [0], [1], name)
        for name, size in (("encode", 4), ("decode", 8))
    ]
    path = tmp_path / "two.tflite"
    path.write_bytes(tflite_of(graphs))
    return path


def test_a_signature_is_measured_by_its_name(device, two_signatures: Path) -> None:
    chosen = wanted(signature="decode")
    (result,) = bench_files([two_signatures], None, device, quick=True, wanted=chosen)
    assert [(info.name, info.shape) for info in result.inputs] == [("in0", (1, 8))]
    assert [(info.name, info.shape) for info in result.outputs] == [("out0", (1, 8))]
    assert result.measurements[0].conditions["signature"] == "decode"


def test_the_first_of_several_signatures_is_measured_with_a_note(device, two_signatures) -> None:
    (result,) = bench_files([two_signatures], None, device, quick=True, wanted=QUICK)
    assert result.inputs[0].shape == (1, 4)
    assert any("signatures are encode, decode: the first" in note for note in result.notes)


def test_a_signature_that_is_not_there_is_refused_with_those_that_are(device, two_signatures):
    with pytest.raises(InputError, match="no signature 'x'; its signatures: encode, decode"):
        bench_files([two_signatures], None, device, quick=True, wanted=wanted(signature="x"))
    with pytest.raises(InputError, match="no signature 'x'") as caught:
        read_tflite(two_signatures, "x")
    assert caught.value.allowed == "encode, decode"


def test_a_signature_that_refers_beyond_the_file_is_refused(tmp_path: Path) -> None:
    graph = G([T((1, 4)), T((1, 4))], [O("RELU", [0], [1])], [0], [1], "main")
    content = bytearray(tflite_of([graph]))
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    import flatbuffers

    for change, words in (("subgraph", "subgraph 7"), ("tensor", "does not exist")):
        signature = model.signatureDefs[0]
        signature.subgraphIndex = 7 if change == "subgraph" else 0
        signature.inputs[0].tensorIndex = 99
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), b"TFL3")
        (tmp_path / "m.tflite").write_bytes(bytes(builder.Output()))
        with pytest.raises(InputError, match=words):
            read_tflite(tmp_path / "m.tflite", "main")
