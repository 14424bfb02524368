"""Ranges from samples by NNCF, and the biases that make good for rounding."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import is_constant
from edgekd.quant.inspection import float_islands, output_scale
from edgekd.quant.rewrite import QUANTIZE, is_weight
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
        graph = calibrate(nn.Linear(3, 2), x[:1], x, scheme, ranges=ranges)
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
        graph = calibrate(layer, x[:1], x, scheme, bias_correction=correction)
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
        graph = calibrate(layer, x[:1], x, scheme, smooth_quant=smooth)
        errors.append(float((graph(x) - expected).abs().mean()))
    assert errors[1] < 0.5 * errors[0]
