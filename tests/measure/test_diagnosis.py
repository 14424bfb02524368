"""The diagnosis of pairs of files: a layer made bad comes first, with its cause and its repair."""

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.measure.diagnosis.find import diagnose_pair, sqnr
from edgekd.measure.diagnosis.pair import Grid, read_pair
from edgekd.measure.diagnosis.repair import channel_spread
from edgekd.report.diagnosis import diagnosis_lines, diagnosis_picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LAYERS = 4
SIZE = 24
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(64, SIZE)).astype(np.float32)


def constants(weights: list[np.ndarray]) -> list:
    from onnx import numpy_helper

    return [numpy_helper.from_array(weight, f"body.{n}.weight")
            for n, weight in enumerate(weights)]  # fmt: skip


def network(path: Path, loud: int | None = None) -> Path:
    """x -> linear, ReLU, four times; one output channel of the layer `loud` is 40 times as loud."""
    from onnx import TensorProto, helper

    draw = np.random.default_rng(1)
    weights = [
        draw.normal(0, (2 / SIZE) ** 0.5, (SIZE, SIZE)).astype(np.float32) for _ in range(LAYERS)
    ]
    if loud is not None:
        weights[loud][3] *= 40
    nodes, key = [], "x"
    for n in range(LAYERS):
        nodes.append(helper.make_node("Gemm", [key, f"body.{n}.weight"], [f"a{n}"],
                                      name=f"/body/{n}/Gemm", transB=1))  # fmt: skip
        key = f"b{n}" if n < LAYERS - 1 else "y"
        if n < LAYERS - 1:
            nodes.append(helper.make_node("Relu", [f"a{n}"], [key], name=f"/body/{n}/Relu"))
    nodes[-1].output[0] = "y"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE])
            for name in ("x", "y")]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants(weights))
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def quantized(floating: Path, made: Path, *, per_channel: bool = True, operators=False) -> Path:
    """The file as ONNX Runtime's own quantizer makes it, which edgekd has no part in."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Reader:
        def __init__(self):
            self.rows = iter([{"x": X}])

        def get_next(self):
            return next(self.rows, None)

    kind = QuantFormat.QOperator if operators else QuantFormat.QDQ
    quantize_static(floating, made, Reader(), quant_format=kind, per_channel=per_channel,
                    weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)  # fmt: skip
    return made


def scaled(path: Path, tensor: str, factor: float) -> None:
    """Change the scale of one tensor's grid."""
    from onnx import numpy_helper

    model = onnx.load(path)
    name = next(node.input[1] for node in model.graph.node
                if node.op_type == "QuantizeLinear" and node.input[0] == tensor)  # fmt: skip
    kept = next(one for one in model.graph.initializer if one.name == name)
    value = numpy_helper.to_array(kept) * np.float32(factor)
    kept.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, path)


@pytest.fixture
def files(tmp_path):
    floating = network(tmp_path / "float.onnx")
    return floating, quantized(floating, tmp_path / "int8.onnx")


def test_layers_are_named_and_paired_and_their_errors_add_up(files):
    found = diagnose_pair(read_pair(*files), [X])
    assert sorted(row.layer for row in found.layers) == [f"body.{n}" for n in range(LAYERS)]
    assert sum(row.error_share for row in found.layers) == pytest.approx(1)
    assert all(25 < row.weight_sqnr < 60 for row in found.layers)
    assert found.final_sqnr > 25
    assert not any(row.causes for row in found.layers)


@pytest.mark.parametrize(
    ("factor", "cause", "repair"),
    [(32.0, "of its grid", "narrow its range"), (1 / 8, "beyond its grid", "widen its range")],
)
def test_a_bad_range_comes_first_with_the_range_that_it_should_have(files, factor, cause, repair):
    scaled(files[1], "b1", factor)
    first = diagnose_pair(read_pair(*files), [X]).layers[0]
    assert first.layer == "body.1"
    assert cause in first.causes[0]
    assert first.repairs[0].what.startswith(repair)
    gain = first.repairs[0].gain.removeprefix("its grid: ").removesuffix(" dB")
    now, after = (float(word) for word in gain.split(" to "))
    assert after > now + 10
    assert first.repairs[-1].what == "keep it in float"
    assert first.repairs[-1].recipe == 'ignore = ["body.1"]'


def test_16_bits_are_a_repair_where_the_file_can_have_them(files):
    scaled(files[1], "b1", 32.0)
    found = diagnose_pair(read_pair(*files), [X], wide="they are slow")
    first = found.layers[0]
    repair = first.repairs[-1]
    assert repair.what == "give what it reads and writes 16 bits"
    assert repair.recipe == 'int16_layers = ["body.1"]'
    assert repair.cost.endswith("they are slow")
    assert first.wide_sqnr is not None
    assert first.restored_sqnr is not None
    # The fault is the grid's: without it the layer is nearly as good as one in float.
    assert found.final_sqnr + 10 < first.wide_sqnr
    shown = "\n".join(diagnosis_lines(found))
    assert 'in the quantize stage: int16_layers = ["body.1"]' in shown


def test_one_scale_for_a_loud_channel_and_the_others_is_found(tmp_path):
    floating = network(tmp_path / "float.onnx", loud=2)
    made = quantized(floating, tmp_path / "int8.onnx", per_channel=False)
    first = diagnose_pair(read_pair(floating, made), [X]).layers[0]
    assert first.layer == "body.2"
    assert first.causes[0].startswith("one scale for all weights")
    assert first.repairs[0].what.startswith("a scale for each channel")


def test_files_whose_operators_take_integers_are_read_too(tmp_path):
    floating = network(tmp_path / "float.onnx")
    made = quantized(floating, tmp_path / "int8.onnx", operators=True, per_channel=False)
    found = diagnose_pair(read_pair(floating, made), [X])
    assert len(found.layers) == LAYERS
    assert all(row.output_sqnr > 20 for row in found.layers)
    assert all(row.restored_sqnr is None for row in found.layers)


def test_leaving_the_bad_layer_in_float_repairs_the_file(files):
    scaled(files[1], "b1", 32.0)
    found = diagnose_pair(read_pair(*files), [X])
    first = found.layers[0]
    assert first.restored_sqnr > found.final_sqnr + 6
    assert first.alone_sqnr == pytest.approx(found.final_sqnr, abs=2)


def test_the_text_and_the_picture_name_the_worst_layer_and_its_cause(files):
    scaled(files[1], "b1", 32.0)
    found = diagnose_pair(read_pair(*files), [X])
    lines = diagnosis_lines(found)
    assert lines[0].startswith("int8.onnx against float.onnx, 64 samples: final output")
    assert lines[2].startswith("body.1")
    assert any(line.startswith("body.1: its outputs reach") for line in lines)
    assert "body.1" in diagnosis_picture(found, page=False)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0), "this file is quantized: the float one comes first"),
        ((0, 0), "no tensor of this file is quantized"),
    ],
)
def test_files_in_the_wrong_order_are_refused(files, order, message):
    with pytest.raises(InputError, match=message):
        read_pair(files[order[0]], files[order[1]])


def test_another_kind_of_file_is_refused(files, tmp_path):
    with pytest.raises(InputError, match="files can't be diagnosed"):
        read_pair(files[0], tmp_path / "model.so")


def test_samples_of_another_shape_are_refused(files):
    with pytest.raises(InputError, match="does not run on these samples"):
        diagnose_pair(read_pair(*files), [X[:, :5]])


def test_decibels():
    assert sqnr(np.array([10.0]), np.array([9.0])) == pytest.approx(20.0)
    assert sqnr(np.array([1.0]), np.array([1.0])) == 200.0


def test_a_grid_rounds_and_saturates():
    grid = Grid(scale=0.5, zero_point=0, least=-2, most=2)
    assert grid.rounded(np.array([0.6, 9.0, -9.0])).tolist() == [0.5, 1.0, -1.0]
    assert (grid.low, grid.high) == (-1.0, 1.0)


def test_the_spread_of_channels_is_the_largest_over_the_median():
    values = np.ones((2, 5, 3))
    values[:, 2] = 40
    assert channel_spread(values) == 40.0
