"""Ranges from samples, and the biases that make good for rounding."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import is_constant
from edgekd.quant.inspection import float_islands, output_scale
from edgekd.quant.post_training import PostTraining
from edgekd.quant.preparing import NOTES
from edgekd.quant.ranges import RangeRule
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE, dequantized, is_weight
from edgekd.values.target import Scheme

X86 = Scheme(activations="uint8-affine", weight_bits=7)


def grids(graph: fx.GraphModule) -> list[tuple[float, int]]:
    nodes = [n for n in graph.graph.nodes if n.target in QUANTIZE and not is_weight(n)]
    return [(node.args[1], node.args[2]) for node in nodes]


def weights(graph: fx.GraphModule) -> list[Tensor]:
    state = dict(graph.named_buffers())
    read = [state[str(n.target)] for n in graph.graph.nodes if is_constant(n) and n.target in state]
    return [one for one in read if one.dtype is torch.int8 and one.dim() > 1]


@pytest.fixture(scope="module")
def calibrated(network, samples):
    return calibrate(network, samples[:1], samples, X86)


def test_values_from_0_to_2_55_get_a_step_of_0_01():
    x = torch.tensor([[0.0, 2.55, 1.0], [0.5, 0.0, 0.1]])
    graph = calibrate(nn.Linear(3, 2), x[:1], x, Scheme(activations="uint8-affine"))
    assert grids(graph)[0] == (pytest.approx(0.01, rel=1e-5), -128)


def test_the_mean_of_extremes_clips_what_is_rare():
    x = torch.zeros(4, 3)
    x[:, 0] = torch.tensor([1.0, 1.0, 1.0, 7.2])  # a mean of 2.55
    for ranges, scale in (("minmax", 7.2 / 255), ("mean-minmax", 0.01)):
        scheme = Scheme(activations="int8-affine")
        graph = calibrate(nn.Linear(3, 2), x[:1], x, scheme, PostTraining(RangeRule(ranges)))
        assert grids(graph)[0][0] == pytest.approx(scale, rel=1e-5)


def test_outputs_stay_near_those_of_the_float_network(calibrated, network, samples):
    with torch.no_grad():
        expected, found = network(samples), calibrated(samples)
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.std())
    assert output_scale(calibrated) is not None
    assert float_islands(calibrated) == []


def test_seven_bit_weights_lie_between_minus_63_and_63(calibrated):
    found = weights(calibrated)
    assert len(found) == 10
    largest = [int(one.int().abs().max()) for one in found]
    assert max(largest) == 63
    assert min(largest) >= 62


@pytest.fixture(scope="module")
def eight_bits(network, samples):
    return calibrate(network, samples[:1], samples[:4], Scheme(activations="int8-affine"))


def test_eight_bit_weights_leave_minus_128_out(eight_bits):
    found = [one.int() for one in weights(eight_bits)]
    assert len(found) == 10
    assert min(int(one.min()) for one in found) == -127
    assert max(int(one.max()) for one in found) == 127


def test_eight_bit_weights_use_the_whole_range_in_every_layer(eight_bits):
    assert [int(one.int().abs().max()) for one in weights(eight_bits)] == [127] * 10


def test_symmetric_activations_keep_their_zero_point_behind_a_relu(network, samples):
    scheme = Scheme(activations="int8-symmetric")
    graph = calibrate(network, samples[:1], samples[:4], scheme)
    assert {zero_point for _, zero_point in grids(graph)} == {0}


def test_bias_correction_moves_the_mean_output_back():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 16), torch.rand(256, 64)
    expected = layer(x).mean(0)
    scheme = Scheme(activations="int8-affine", per_channel=False, weight_bits=7)
    shifts = []
    for correction in (False, True):
        graph = calibrate(layer, x[:1], x, scheme, PostTraining(bias_correction=correction))
        shifts.append(float((graph(x).mean(0) - expected).abs().mean()))
    assert shifts[1] < 0.3 * shifts[0]


def test_calibrating_prints_nothing_and_leaves_the_network_alone(network, samples, capfd):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate(network, samples[:1], samples[:2], X86)
    assert capfd.readouterr().out == ""
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_two_calibrations_are_equal(calibrated, network, samples):
    again = calibrate(network, samples[:1], samples, X86)
    with torch.no_grad():
        assert torch.equal(again(samples), calibrated(samples))


def test_smooth_quant_keeps_channels_apart_that_differ_a_hundredfold():
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8), torch.randn(64, 8)
    x[:, 0] *= 100.0
    with torch.no_grad():
        layer.weight[:, 0] /= 100.0
    expected = layer(x)
    errors = []
    for smooth in (False, True):
        scheme = Scheme(activations="int8-affine")
        graph = calibrate(layer, x[:1], x, scheme, PostTraining(smooth_quant=smooth))
        errors.append(float((graph(x) - expected).abs().mean()))
    assert errors[1] < 0.5 * errors[0]


def resolution(graph: fx.GraphModule) -> float:
    return grids(graph)[0][0]


@pytest.mark.parametrize("kind", ["percentile", "entropy", "mse", "octav"])
def test_a_rare_large_value_does_not_coarsen_the_grid(kind):
    torch.manual_seed(0)
    x = torch.rand(8192, 128)
    x[0, 0] = 2.0
    scheme, layer = Scheme(activations="int8-affine"), nn.Linear(128, 4)
    found = [
        resolution(calibrate(layer, x[:1], x, scheme, PostTraining(RangeRule(each))))
        for each in ("minmax", kind)
    ]
    assert found[0] == pytest.approx(2 / 255, rel=1e-3)
    assert found[1] < 0.7 * found[0]


@pytest.mark.parametrize("activations", ["uint8-affine", "int8-affine", "int8-symmetric"])
@pytest.mark.parametrize("kind", ["percentile", "entropy", "mse", "octav", "moving-average"])
def test_a_residual_network_computes_nearly_the_same_with_every_rule(
    kind, activations, network, samples
):
    choices = PostTraining(RangeRule(kind))
    graph = calibrate(network, samples[:1], samples, Scheme(activations=activations), choices)
    with torch.no_grad():
        expected, found = network(samples), graph(samples)
    assert float((found - expected).abs().mean()) < 0.1 * float(expected.std())
    assert float_islands(graph) == []


def test_a_fixed_grid_stays_whatever_the_rule_is():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2)), torch.randn(64, 8)
    scheme, choices = Scheme(activations="int8-affine"), PostTraining(RangeRule("mse"))
    assert (1 / 256, -128) in grids(calibrate(module, x[:1], x, scheme, choices))


def test_one_scale_for_all_weights_by_squared_error_clips_a_weight_far_out():
    torch.manual_seed(0)
    layer, x = nn.Linear(1024, 64), torch.randn(64, 1024)
    with torch.no_grad():
        layer.weight[0, 0] = 1.3 * layer.weight.abs().max()
    scheme = Scheme(activations="int8-affine", per_channel=False)
    errors = []
    for kind in ("max", "mse"):
        graph = calibrate(layer, x[:1], x, scheme, PostTraining(weight_ranges=kind))
        (node,) = [n for n in graph.graph.nodes if n.target in DEQUANTIZE and is_weight(n)][:1]
        errors.append(float((dequantized(graph, node) - layer.weight).square().sum()))
    assert errors[1] < 0.8 * errors[0]


def test_smooth_quant_moves_the_inverse_into_a_layer_norm():
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8)).eval()
    with torch.no_grad():
        module[0].weight[0] = 100.0
    x = torch.randn(64, 16)
    scheme = Scheme(activations="int8-affine")
    graph = calibrate(module, x[:1], x, scheme, PostTraining(smooth_quant=True))
    assert not any(node.target is torch.ops.aten.mul.Tensor for node in graph.graph.nodes)
    plain = calibrate(module, x[:1], x, scheme)
    with torch.no_grad():
        losses = [float((g(x) - module(x)).square().mean()) for g in (plain, graph)]
    assert losses[1] < 0.3 * losses[0]
    assert "SmoothQuant on 1 of 1 inputs" in graph.meta[NOTES][0]
