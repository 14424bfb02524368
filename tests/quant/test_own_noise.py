"""Each layer of a quantized graph by itself, bias and constants included, held against its bits."""

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.errors import ToolError
from edgekd.models.resnet import resnet8
from edgekd.network.fx_names import layer_of
from edgekd.quant import calibration
from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import constant_of
from edgekd.quant.layer_noise import LayerNoise
from edgekd.quant.own_noise import FLOOR_DB, check_noises, own_noises
from edgekd.quant.preparing import NOTES, prepare_graph
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.rewrite import dequantized
from edgekd.values.target import Scheme

SEVEN = Scheme(activations="uint8-affine", weight_bits=7)


class Shifted(nn.Module):
    """A residual network with a learned map that is added to its features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet8(channels=8, widths=(8, 12, 16), classes=4)
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.map = nn.Parameter(torch.randn(1, 8, 12, 12) * 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.body(self.stem(x) + self.map)
        return output


Parts = tuple[nn.Module, Tensor, fx.GraphModule, fx.GraphModule]


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    module, x = Shifted(), torch.randn(24, 1, 12, 12)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.bias.normal_()
        for _ in range(10):
            module(x)
    module.eval()
    return (
        module,
        x,
        prepare_graph(module, x[:1], x, SEVEN, "").graph,
        calibrate(module, x[:1], x, SEVEN),
    )


def test_no_layer_of_a_right_graph_lies_far_under_what_its_bits_give(parts: Parts) -> None:
    _, x, floating, quantized = parts
    noises = own_noises(floating, quantized, x, SEVEN)
    assert {"stem.0", "body.stem.0", "body.stages.1.0.conv1", "body.classifier"} <= {
        each.layer for each in noises
    }
    weighted = [each for each in noises if each.layer != "add"]  # whose map is rounded too
    assert [each for each in weighted if each.found < each.possible - 4.0] == []
    assert min(each.possible for each in noises) > 30.0
    assert check_noises(noises, SEVEN) == ()


def _node(graph: fx.GraphModule, layer: str) -> fx.Node:
    """A layer's node, found by its recorded module."""
    return next(
        node
        for node in graph.graph.nodes
        if node.op == "call_function"
        and layer_of(node) == layer
        and str(node.target).startswith(("aten.conv2d", "aten.linear"))
    )


def _constants(graph: fx.GraphModule, layer: str) -> tuple[Tensor, Tensor]:
    """The integer weight and bias of a layer."""
    node = _node(graph, layer)
    return constant_of(graph, node.args[1].args[0]), constant_of(graph, node.args[2].args[0])


def _clip(weight: Tensor, _bias: Tensor) -> None:
    weight.clamp_(-20, 20)


def _swap(weight: Tensor, _bias: Tensor) -> None:
    weight.copy_(weight.flip(0))


def _no_bias(_weight: Tensor, bias: Tensor) -> None:
    bias.zero_()


def _other_bias(_weight: Tensor, bias: Tensor) -> None:
    bias.copy_(bias.roll(1))


@pytest.mark.parametrize("layer", ["stem.0", "body.stages.0.0.conv1", "body.stages.2.0.shortcut"])
@pytest.mark.parametrize("fault", [_clip, _swap, _no_bias, _other_bias])
def test_a_planted_fault_is_found_with_its_layer_alone(parts: Parts, layer: str, fault) -> None:
    _, x, floating, right = parts
    quantized = copy.deepcopy(right)
    with torch.no_grad():
        fault(*_constants(quantized, layer))
    noises = own_noises(floating, quantized, x, SEVEN)
    with pytest.raises(ToolError, match=r"dB where 7 bits give \d\d") as caught:
        check_noises(noises, SEVEN, "stages.1")
    assert [each.layer for each in noises if each.found < FLOOR_DB] == [layer]
    assert caught.value.message.startswith(f"the quantized graph is wrong in {layer} ")
    assert "not of the training" in caught.value.hint


def test_what_bias_correction_added_for_the_layers_before_is_no_fault(parts: Parts) -> None:
    _, x, floating, right = parts
    quantized = copy.deepcopy(right)
    node = _node(quantized, "body.stages.0.0.conv1")
    before = dequantized(quantized, node.args[2])
    with torch.no_grad():
        _other_bias(*_constants(quantized, "body.stages.0.0.conv1"))
    shifts = {node.name: dequantized(quantized, node.args[2]) - before}
    assert check_noises(own_noises(floating, quantized, x, SEVEN, shifts=shifts), SEVEN) == ()
    with pytest.raises(ToolError, match=r"wrong in body\.stages\.0\.0\.conv1 "):
        check_noises(own_noises(floating, quantized, x, SEVEN), SEVEN)


def test_a_constant_that_was_overwritten_is_found(parts: Parts) -> None:
    _, x, floating, right = parts
    quantized = copy.deepcopy(right)
    stored = [name for name, each in quantized.named_buffers() if each.shape == (1, 8, 12, 12)]
    with torch.no_grad():
        getattr(quantized, stored[0]).zero_()
    (wrong,) = [each for each in own_noises(floating, quantized, x, SEVEN) if each.found < 15.0]
    assert wrong.possible > 30.0


def test_a_range_that_cuts_values_is_found(parts: Parts) -> None:
    _, x, floating, right = parts
    quantized = copy.deepcopy(right)
    node = next(
        node
        for node in quantized.graph.nodes
        if "quantize_per_tensor" in str(node.target) and node.op == "call_function"
        and getattr(node.args[0], "op", "") == "placeholder"
    )  # fmt: skip
    for each in (node, *node.users):
        each.args = (each.args[0], each.args[1] / 4, *each.args[2:])
    quantized.recompile()
    noises = own_noises(floating, quantized, x, SEVEN)
    assert noises[0].layer == "stem.0"
    assert noises[0].found < FLOOR_DB
    with pytest.raises(ToolError, match=r"wrong in stem\.0"):
        check_noises(noises, SEVEN)
    chosen = own_noises(floating, quantized, x, SEVEN, clips=True)
    assert check_noises(chosen, SEVEN) == (), "whoever chose the ranges wanted them to clip"


def test_calibration_fails_by_a_conversion_that_loses_a_bias(parts: Parts, monkeypatch) -> None:
    module, x, _, _ = parts
    finish = calibration.finish

    def losing(graph: fx.GraphModule) -> fx.GraphModule:
        finished = finish(graph)
        _no_bias(*_constants(finished, "body.stages.0.0.conv1"))
        return finished

    monkeypatch.setattr(calibration, "finish", losing)
    with pytest.raises(ToolError, match=r"wrong in body\.stages\.0\.0\.conv1 "):
        calibrate(module, x[:1], x, SEVEN)


def test_a_trained_graph_is_held_against_its_fake_quantized_self(parts: Parts) -> None:
    module, x, _, _ = parts
    graph = prepare_qat(module, x[:1], x, SEVEN)
    trained = copy.deepcopy(graph)
    finished = finish_qat(graph, x[:1])
    noises = own_noises(trained, finished, x, SEVEN)
    assert len(noises) > 10
    assert min(each.found for each in noises) > 45.0
    _swap(*_constants(finished, "body.stages.1.0.conv1"))
    with pytest.raises(ToolError, match=r"wrong in body\.stages\.1\.0\.conv1 "):
        check_noises(own_noises(trained, finished, x, SEVEN), SEVEN)


@pytest.mark.parametrize(
    ("found", "possible", "outcome"),
    [
        (41.0, 42.0, "right"),
        (31.0, 60.0, "right"),  # good enough
        (25.0, 42.0, "coarse"),
        (25.0, 33.0, "right"),  # nearly what its bits give
        (14.0, 28.0, "coarse"),
        (14.0, 30.0, "wrong"),
        (-3.0, 42.0, "wrong"),
    ],
)
def test_the_rule_is_what_its_bits_give_and_a_floor(found, possible, outcome) -> None:
    noises = [LayerNoise("conv_dw.3", found, possible)]
    if outcome == "wrong":
        with pytest.raises(ToolError, match=f"conv_dw.3 {found:.0f} dB where 7 bits give"):
            check_noises(noises, SEVEN)
        return
    notes = check_noises(noises, SEVEN)
    assert bool(notes) is (outcome == "coarse")
    if notes:
        assert notes == (f"coarse: conv_dw.3 {found:.0f} dB where 7 bits give {possible:.0f}",)


def test_a_coarse_layer_is_a_note_of_the_graph(parts: Parts, monkeypatch) -> None:
    module, x, _, _ = parts
    weak = [LayerNoise("stem.0", 22.0, 41.0)]
    monkeypatch.setattr(calibration, "own_noises", lambda *_, **__: weak)
    graph = calibrate(module, x[:1], x, SEVEN)
    assert graph.meta[NOTES] == ("coarse: stem.0 22 dB where 7 bits give 41",)


class Untrained(nn.Module):
    """A neck before training: what comes from below is next to nothing beside what it joins."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size
        self.below, self.beside = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 3, 1, 1)
        self.head = nn.Conv2d(16, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        below = nn.functional.interpolate(self.below(x) * self.size, scale_factor=2.0)
        return self.head(torch.cat([below, 1e-3 * self.beside(x)], 1))


def test_values_that_are_next_to_nothing_beside_others_are_not_judged():
    """As those of a YOLO of random weights are, which could not be trained otherwise."""
    torch.manual_seed(0)
    module, x = Untrained(1e-9).eval(), torch.randn(16, 3, 8, 8)
    noises = own_noises(
        prepare_graph(module, x[:1], x, SEVEN, "").graph,
        calibrate(module, x[:1], x, SEVEN),
        x,
        SEVEN,
    )
    assert check_noises(noises, SEVEN) is not None
    assert min(each.found for each in noises) > FLOOR_DB
