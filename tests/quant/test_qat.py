"""Fake quantization that is trained: ranges, gradients, and the integers at the end."""

import pytest
import torch
from torch import nn

from edgekd.network.fx_names import layer_of
from edgekd.quant.inspection import output_scale
from edgekd.quant.qat import activations, finish_qat, freeze_ranges, prepare_qat
from edgekd.quant.rewrite import QUANTIZE, is_weight
from edgekd.values.target import Scheme

AFFINE = Scheme(activations="int8-affine")


def input_scale(graph: nn.Module) -> float:
    return float(activations(graph)[0].scale)


def mixed() -> nn.Linear:
    """A channel whose largest weight is positive, and one whose largest is negative."""
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, -0.5, 0.1], [-1.27, 0.5, 0.1]]))
    return layer


@pytest.fixture
def prepared():
    x = torch.tensor([[0.0, 2.55, 1.0], [0.5, 0.0, 0.1]])
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = prepare_qat(layers, x[:1], x, AFFINE)
    graph(x)  # scales are worked out from the ranges when something passes
    return graph


def test_ranges_start_from_the_samples_and_stand_still_in_evaluation(prepared):
    assert input_scale(prepared) == pytest.approx(0.01, rel=1e-6)
    prepared(torch.full((4, 3), 100.0))
    assert input_scale(prepared) == pytest.approx(0.01, rel=1e-6)


def test_ranges_start_from_the_mean_of_the_batches_extremes():
    x = torch.zeros(128, 3)  # two batches of 64
    x[0, 0], x[64, 0] = 1.55, 3.55
    graph = prepare_qat(nn.Linear(3, 2), x[:1], x, AFFINE)
    graph(x[:1])
    assert input_scale(graph) == pytest.approx(0.01, rel=1e-6)  # (1.55 + 3.55) / 2 / 255


def test_ranges_follow_the_data_in_training_by_a_hundredth(prepared):
    prepared.train()
    prepared(torch.tensor([[0.0, 102.55, 0.0]]))
    # 2.55 + 0.01 * (102.55 - 2.55) = 3.55
    assert input_scale(prepared) == pytest.approx(3.55 / 255, rel=1e-5)


def test_frozen_ranges_stand_still_in_training_while_weights_ranges_follow(prepared):
    prepared.train()
    freeze_ranges(prepared)
    before = {name: value.clone() for name, value in prepared.named_buffers()}
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.mul_(2)
    prepared(torch.full((4, 3), 100.0))
    scales = [name for name in before if name.endswith("scale")]
    moved = [n for n in scales if not torch.equal(before[n], prepared.get_buffer(n))]
    assert input_scale(prepared) == pytest.approx(0.01, rel=1e-6)
    assert len(scales) == 5  # input, two weights, the hidden layer behind its ReLU, output
    assert len(moved) == 2
    for name in moved:
        assert torch.allclose(prepared.get_buffer(name), 2 * before[name])


def test_gradients_pass_straight_through(prepared):
    prepared.train()
    prepared(torch.rand(8, 3)).square().sum().backward()
    gradients = [parameter.grad for parameter in prepared.parameters()]
    assert len(gradients) == 4
    assert all(one is not None and bool(one.abs().sum() > 0) for one in gradients)


def test_the_finished_graph_computes_what_the_trained_one_did(network, samples):
    graph = prepare_qat(network, samples[:1], samples, AFFINE)
    with torch.no_grad():
        trained = graph(samples)
        finished = finish_qat(graph, samples[:1])
        step = output_scale(finished)
        assert step is not None
        difference = (finished(samples) - trained).abs() / step
    assert float(difference.max()) <= 1.01


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_weights_are_trained_on_the_grid_that_they_are_deployed_on(sides, bits):
    layer, x = mixed(), torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    if sides == "one":
        layer.weight.data.abs_()
    graph = prepare_qat(layer, x[:1], x, Scheme(activations="int8-affine", weight_bits=bits))
    graph(x)
    (weight,) = [m for m in graph.modules() if getattr(m, "is_per_channel", False)]
    largest = {8: 127, 7: 63}[bits]
    assert weight.zero_point.tolist() == [0, 0]
    assert weight.scale.tolist() == pytest.approx([1.27 / largest] * 2)


def test_symmetric_activations_are_trained_on_the_grid_that_they_are_deployed_on():
    x = torch.tensor([[0.0, 1.275, 0.5], [1.0, 0.0, 0.2]])
    graph = prepare_qat(nn.Linear(3, 2), x[:1], x, Scheme(activations="int8-symmetric"))
    graph(x)
    entry = activations(graph)[0]
    assert (entry.scale.item(), entry.zero_point.item()) == (pytest.approx(0.01, rel=1e-3), 0)


def test_affine_activations_are_trained_on_the_grid_that_they_are_deployed_on(prepared):
    trained = [(part.scale.item(), part.zero_point.item()) for part in activations(prepared)]
    finished = finish_qat(prepared, torch.rand(1, 3))
    deployed = [
        (node.args[1], node.args[2])
        for node in finished.graph.nodes
        if node.target in QUANTIZE and not is_weight(node)
    ]
    assert len(trained) == 3
    assert [(pytest.approx(s, rel=1e-6), z) for s, z in sorted(trained)] == sorted(deployed)


def test_weights_are_those_of_the_last_step(prepared):
    with torch.no_grad():
        largest = next(p for p in prepared.parameters() if p.shape == (4, 3))
        largest[0] = torch.tensor([12.7, 1.0, -1.0])
    finished = finish_qat(prepared, torch.rand(1, 3))
    weight = next(v for v in finished.buffers() if v.dtype is torch.int8 and v.shape == (4, 3))
    assert weight[0].tolist() == [127, 10, -10]


def test_no_batch_norm_is_left_and_layers_keep_their_names(network, samples):
    graph = prepare_qat(network, samples[:1], samples, AFFINE)
    targets = [str(node.target) for node in graph.graph.nodes]
    assert not any("batch_norm" in target for target in targets)
    names = {layer_of(n) for n in graph.graph.nodes if n.target is torch.ops.aten.conv2d.default}
    assert {"stem.0", "stages.0.0.conv1", "stages.2.0.shortcut"} <= names


def test_the_float_network_is_left_as_it_was(network, samples):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepare_qat(network, samples[:1], samples, AFFINE).train()
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("inside", [nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(1)])
def test_a_pooling_and_its_input_share_the_range_of_both(inside):
    """The pooled values are fewer and nearer to zero; their range alone would clip the input."""
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(inside, nn.Conv2d(3, 2, 1)).eval()
    graph = prepare_qat(network, x[:1], x, AFFINE)
    assert input_scale(graph) == pytest.approx(float(x.max() - x.min()) / 255, rel=1e-3)
    graph.train()
    for _ in range(3):
        graph(2 * x)
    doubled = 1 - 0.99**3  # how far three steps follow
    assert input_scale(graph) == pytest.approx(
        (1 + doubled) * float(x.max() - x.min()) / 255, rel=1e-2
    )
