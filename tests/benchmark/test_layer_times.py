"""Times by operator: named after the layers of the float graph, on real runtimes and by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.plot import write_plot
from edgekd.benchmark.text import bench_lines
from edgekd.devices.host import open_host
from edgekd.devices.replies import Profiled, ProfiledOperator
from edgekd.measure.layer_times import aligned, interquartile_mean, layer_times, rows_of

onnx = pytest.importorskip("onnx")


def two_convolutions(path: Path) -> Path:
    """x -> 'body/0' -> Relu -> 'body/1', named as torch.onnx names nodes."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.normal(size=(8, size, 3, 3)).astype(np.float32), f"w{n}")
        for n, size in enumerate((3, 8))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="/body/0/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="/body/0/Relu"),
        helper.make_node("Conv", ["b", "w1"], ["y"], name="/body/1/Conv", pads=[1, 1, 1, 1]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 24, 24])
        for name, size in (("x", 3), ("y", 8))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
              path)  # fmt: skip
    return path


@pytest.fixture
def profiled(tmp_path):
    """The result of two convolutions in ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    device = open_host()
    try:
        path = two_convolutions(tmp_path / "two.onnx")
        wanted = Wanted(per_layer=True)
        (result,) = bench_files([path], None, device, quick=True, wanted=wanted)
    finally:
        device.close()
    return result


def test_onnx_runtimes_operators_have_the_names_of_the_files_layers(profiled, tmp_path):
    times = profiled.layers
    assert times.kind == "measured"
    named = [row.layer for row in times.rows if "Conv" in row.operator]
    assert named == ["body.0", "body.1"]
    assert sum(row.share for row in times.rows) == pytest.approx(1)
    assert times.runs >= 5
    lines = bench_lines([profiled])
    assert any(line.startswith("body.1 ") and "%" in line for line in lines)
    write_plot([profiled], tmp_path / "plot.html")
    assert "body.1" in (tmp_path / "plot.html").read_text()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of child processes as well."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_onnx_runtimes_profile_is_removed_once_it_is_read(temporary, profiled):
    assert profiled.layers.kind == "measured"
    assert list(temporary.iterdir()) == []


def test_a_runtime_that_cannot_tell_says_so(tmp_path):
    from edgekd.errors import MissingRuntime

    device = open_host()
    artifact = SimpleNamespace(runtime="c", path=tmp_path / "model.c")
    with pytest.raises(MissingRuntime, match="c does not time its operators"):
        device.profile(artifact, {}, quick=True)
    device.close()


def test_the_middle_half_leaves_out_an_interrupted_run():
    assert interquartile_mean([1, 1, 2, 2, 2, 2, 3, 9000]) == 2.0


def test_what_a_runtime_adds_belongs_to_the_operator_before_it():
    names = ["Convolution (NHWC, QC8) IGEMM", "Add (ND)", "Clamp (NC)", "Fully Connected (NC)"]
    assert aligned(names, ["CONV_2D", "PAD", "ADD", "FULLY_CONNECTED"]) == [0, 2, 2, 3]


def test_a_convolution_of_1x1_may_be_called_a_fully_connected_layer():
    names = ["Convolution (NHWC, QC8) DWConv", "Fully Connected (NC, QS8, QC8W) GEMM"] * 2
    names.append("Fully Connected (NC, QS8, QC8W) GEMM")
    known = ["DEPTHWISE_CONV_2D", "CONV_2D"] * 2 + ["FULLY_CONNECTED"]
    assert aligned(names, known, {1, 3}) == [0, 1, 2, 3, 4]
    assert aligned(names, known)[1] != 1


def test_shares_are_parts_of_the_sum():
    rows = rows_of(["a", "b"], ["Conv", "Add"], [30.0, 10.0])
    assert [row.share for row in rows] == [0.75, 0.25]


def test_the_median_is_taken_where_the_clock_is_fine_enough(tmp_path):
    artifact = SimpleNamespace(runtime="onnxruntime", path=tmp_path / "gone.onnx")

    def of(resolution: int) -> str:
        operator = ProfiledOperator(name="a", op="Conv", values=(900, 1000, 1100))
        profiled = Profiled(operators=(operator,), resolution=resolution)
        return layer_times(profiled, artifact, None, "measured").statistic

    assert of(1) == "median"
    assert of(1000) == "interquartile mean"


def test_a_sum_far_from_the_whole_inference_is_told(tmp_path):
    artifact = SimpleNamespace(runtime="onnxruntime", path=tmp_path / "gone.onnx")
    profiled = Profiled(
        operators=(ProfiledOperator(name="a", op="Conv", values=(2000, 2000)),), resolution=1000
    )
    times = layer_times(profiled, artifact, None, "measured", whole_ms=0.001)
    assert times.notes == (
        "its operators take 2 us, a whole inference 1 us: recording costs time, so shares are "
        "more reliable than values",
    )
    times = layer_times(profiled, artifact, None, "measured", whole_ms=0.01)
    assert "counts steps of 1 us and misses what is shorter" in times.notes[0]
