"""`edgekd bench --predict`: a file's latency by the operators of others, without running it."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.prediction import predict_files
from edgekd.devices.opening import open_device
from edgekd.errors import InputError
from edgekd.measure.cost_table import known_files


def exported(path: Path, width: int) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    ).eval()  # fmt: skip
    torch.onnx.export(module, (torch.rand(1, 3, 32, 32),), path, dynamo=True, external_data=False)
    return path


def doubled(path: Path) -> Path:
    """A file that adds its input to itself."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_a_file_is_predicted_from_those_that_were_measured_by_layer(tmp_path, cache, edgekd):
    files = [exported(tmp_path / f"{width}.onnx", width) for width in range(16, 64, 6)]
    other = exported(tmp_path / "other.onnx", 42)
    device = open_device("host")
    try:
        bench_files(files, None, device, quick=True, wanted=Wanted(per_layer=True))
        (folder,) = (cache / "costs").iterdir()
        assert len(known_files(folder)) == len(files) == 8
        (found,) = predict_files([other], None, device, Wanted())
        (result,) = bench_files([other], None, device, quick=True)
    finally:
        device.close()
    latency = {row.metric: row.value for row in result.measurements}["latency_ms_p50"]
    assert found.cost.kind == "estimated"
    assert found.files == 8
    assert 0.4 < found.cost.value / latency < 2.5
    code, out, _ = edgekd("bench", other, "--predict")
    assert code == 0
    line = out.splitlines()[-1]  # PyTorch's exporter prints too
    assert line.startswith("other.onnx: ")
    assert "estimated from 8 files measured in onnxruntime" in line


def test_without_measured_files_the_command_says_how_to_measure_them(tmp_path, cache, edgekd):
    code, _, err = edgekd("bench", doubled(tmp_path / "a.onnx"), "--predict")
    assert code == 2
    assert "0 files were measured by operator here, too few to predict another" in err
    assert "edgekd bench FILE... --per-layer" in err


def test_a_format_whose_operators_are_not_known_is_refused(tmp_path, cache):
    with pytest.raises(InputError, match=r"the operators of a '\.so' file are not known"):
        predict_files([tmp_path / "a.so"], None, open_device("host"), Wanted())
