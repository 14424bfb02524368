"""Operators of TFLite files have the names of the user's layers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.backends.tflite.convert import convert_artifact
from edgekd.formats.operator_notes import converted_layer
from edgekd.formats.tflite import read_tflite
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.named_layers import NamedLayers, layer_names
from edgekd.quant.storage import load_graph, save_graph
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.gate, self.mix_in = nn.SiLU(), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        output: Tensor = self.head((x + self.gate(self.mix_in(x))).mean((2, 3)))
        return output


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> object:
    target = load_target("raspberry-pi-4")
    path = tmp_path_factory.mktemp("graph") / "graph.pt2"
    save_graph(calibrate(Net().eval(), X[:1], X, target.quantization), path)
    return load_graph(path)


def test_a_stored_graph_keeps_the_names_of_layers_and_a_clamp_is_its_layer_s(stored):
    names = layer_names(stored)
    assert names["conv2d"] == names["relu"] == "stem|0"
    assert names["conv2d_1"] == "mix_in"
    assert names["sigmoid"] == "gate" if "sigmoid" in names else "gate" in names.values()
    assert names["linear"] == "head"


def test_naming_changes_no_value(stored):
    with torch.no_grad():
        assert torch.equal(NamedLayers(stored)(X), stored(X))


def test_a_layer_may_be_called_like_an_attribute_of_modules():
    class Typed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 0).float() * x

    graph = export_graph(Typed(), X[:1])
    assert any(hasattr(nn.Module(), layer) for layer in layer_names(graph).values())
    assert torch.equal(NamedLayers(graph)(X), X.relu())


@pytest.mark.slow
def test_a_tflite_file_names_its_operators_after_layers(stored, tmp_path: Path):
    candidate = Candidate(stored, X[:1], "int8")
    artifact = convert_artifact(candidate, load_target("raspberry-pi-4"), (), tmp_path / "m.tflite")
    found = [(op.op, converted_layer(op.name)) for op in read_tflite(artifact.path).ops]
    assert found[:4] == [
        ("CONV_2D", "stem.0"), ("CONV_2D", "mix_in"), ("LOGISTIC", "gate"), ("MUL", "gate")
    ]  # fmt: skip
