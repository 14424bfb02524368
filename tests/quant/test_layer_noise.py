"""A wrong graph is found by the layer's name, though any file made of it would agree with it."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.errors import ToolError
from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import constant_of
from edgekd.quant.export import export_graph
from edgekd.quant.layer_noise import check_layers, layer_noises, signal_to_noise
from edgekd.values.target import Scheme

SEVEN = Scheme(activations="uint8-affine", weight_bits=7)


def test_signal_to_noise_of_a_tenth_is_20_decibels():
    assert signal_to_noise(torch.tensor([3.0, 4.0]), torch.tensor([3.3, 4.4])) == pytest.approx(20)
    assert signal_to_noise(torch.ones(2), torch.ones(2)) == 200.0


@pytest.fixture
def parts() -> tuple[nn.Module, Tensor, fx.GraphModule, fx.GraphModule]:
    torch.manual_seed(0)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), depthwise, nn.Flatten(), nn.Linear(288, 4)
    )
    x = torch.randn(16, 3, 8, 8)
    return module.eval(), x, export_graph(module, x[:1]), calibrate(module, x[:1], x, SEVEN)


def test_every_layer_of_a_right_graph_gives_what_its_bits_can(parts):
    _, x, floating, quantized = parts
    noises = layer_noises(floating, quantized, x, SEVEN)
    assert [each.layer for each in noises] == ["0", "2", "4"]
    assert all(abs(each.found - each.possible) < 1.0 for each in noises)
    assert all(each.possible > 35 for each in noises)


def _weight_of(graph: fx.GraphModule, name: str) -> Tensor:
    node = next(node for node in graph.graph.nodes if node.name == name)
    return constant_of(graph, node.args[1].args[0])


@pytest.mark.parametrize("fault", ["clipped", "swapped"])
def test_a_layer_whose_weights_are_wrong_is_named_with_both_numbers(parts, fault):
    _, x, floating, quantized = parts
    weight = _weight_of(quantized, "conv2d_1")
    weight.copy_(weight.clamp(-31, 31) if fault == "clipped" else weight.flip(0))
    message = r"wrong in 2: -?\d+ dB where 7 bits give 4\d"
    with pytest.raises(ToolError, match=message) as caught:
        check_layers(floating, quantized, x, SEVEN, "stages.1")
    assert caught.value.where == "stages.1"
