"""A fault of one layer of a file is found with the layer's name, whatever the network's depth."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from untrained import trained_looking

from edgekd.backends.onnx.export import export_artifact
from edgekd.measure.divergence import divergence_of
from edgekd.quant.calibration import calibrate
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme, load_target

SIDE = 32
SAMPLES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
MOST_LSB = 2.0

LAYERS = {
    "resnet18": "layer2.0.conv2",
    "resnet50": "layer3.1.conv2",
    "mobilenetv2_050": "blocks.3.0.conv_dw",
    "efficientnet_lite0": "blocks.2.1.conv_dw",
}
"""timm's networks, and the layer of each that is to be wrong: a kernel that is not symmetric."""


@pytest.fixture(scope="module", params=LAYERS)
def made(request, tmp_path_factory) -> tuple[Any, Artifact, str]:
    """The quantized graph, its ONNX file, and the layer that is to be wrong."""
    module, target = trained_looking(request.param), load_target("x86")
    target = target.model_copy(update={"quantization": Scheme(activations="uint8-affine")})
    graph = calibrate(module, SAMPLES[:1], SAMPLES, target.quantization)
    folder = tmp_path_factory.mktemp(request.param)
    candidate = Candidate(graph, SAMPLES[:1], "int8")
    artifact = export_artifact(candidate, target, (), folder / "model.onnx")
    return graph, artifact, LAYERS[request.param]


class _Layer:
    """The convolution of an ONNX file whose weight is named after a layer."""

    def __init__(self, model: Any, layer: str) -> None:
        self.model = model
        self.constants = {each.name: each for each in model.graph.initializer}
        self.made = {name: node for node in model.graph.node for name in node.output}
        stem = layer.replace(".", "_")
        self.node = next(
            node for node in model.graph.node
            if node.op_type == "Conv" and self.made[node.input[1]].input[0].startswith(f"{stem}_")
        )  # fmt: skip

    def value(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])

    def change(self, name: str, value: np.ndarray) -> None:
        self.constants[name].CopyFrom(numpy_helper.from_array(value, name))

    def own(self, node: Any, place: int, value: np.ndarray) -> None:
        """Give one operator a constant that others don't read."""
        name = f"{node.input[place]}_planted"
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        node.input[place] = name


def transposed_weight(layer: _Layer) -> None:
    name = layer.made[layer.node.input[1]].input[0]
    layer.change(name, np.ascontiguousarray(layer.value(name).swapaxes(2, 3)))


def wrong_zero_point(layer: _Layer) -> None:
    """The layer reads its input three steps beside what was written."""
    reader = layer.made[layer.node.input[0]]
    planted = copy.deepcopy(reader)
    planted.name, planted.output[0] = f"{reader.name}_planted", f"{reader.output[0]}_planted"
    place = list(layer.model.graph.node).index(layer.node)
    layer.model.graph.node.insert(place, planted)
    inserted = layer.model.graph.node[place]
    layer.own(inserted, 2, layer.value(reader.input[2]) + np.uint8(3))
    layer.node.input[0] = inserted.output[0]


def wrong_rounding(layer: _Layer) -> None:
    """Outputs are rounded down instead of to the nearest."""
    bias = layer.made[layer.node.input[2]]
    (clamp,) = (node for node in layer.model.graph.node if layer.node.output[0] in node.input)
    while clamp.op_type != "QuantizeLinear":
        (clamp,) = (node for node in layer.model.graph.node if clamp.output[0] in node.input)
    half = 0.5 * layer.value(clamp.input[1]) / layer.value(bias.input[1])
    moved = layer.value(bias.input[0]) - np.round(half).astype(np.int32)
    layer.change(bias.input[0], moved.astype(np.int32))


@pytest.mark.slow
def test_a_right_file_has_no_layer_that_strays(made):
    graph, artifact, _ = made
    assert divergence_of(graph, artifact, SAMPLES, MOST_LSB).clean


@pytest.mark.slow
@pytest.mark.parametrize("fault", [transposed_weight, wrong_zero_point, wrong_rounding])
def test_a_planted_fault_is_found_with_its_layer(
    made, fault: Callable[[_Layer], None], tmp_path: Path
):
    graph, artifact, layer = made
    model = onnx.load(artifact.path)
    fault(_Layer(model, layer))
    onnx.save(model, tmp_path / "model.onnx")
    wrong = artifact.model_copy(update={"path": tmp_path / "model.onnx"})
    found = divergence_of(graph, wrong, SAMPLES, MOST_LSB)
    assert not found.clean
    assert found.sentence.startswith(f"{layer} (")
