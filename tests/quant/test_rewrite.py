"""Rewrites of a quantized graph leave every number as it was."""

from typing import Any

import pytest
import torch
from torch import nn

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.rewrite import (
    DEQUANTIZE,
    QUANTIZE,
    as_uint8,
    fold_weights,
    is_weight,
)
from edgekd.quant.unfolding import unfolded
from edgekd.values.target import Scheme


def activations(graph: Any) -> list[Any]:
    found = QUANTIZE | DEQUANTIZE
    return [node for node in graph.graph.nodes if node.target in found and not is_weight(node)]


def integers(graph: Any) -> dict[str, torch.Tensor]:
    """Every tensor of weights or biases that the graph reads as integers, by name."""
    whole = (torch.int8, torch.int32)
    read = [str(node.target) for node in graph.graph.nodes if is_constant(node)]
    state = dict(graph.named_buffers())
    return {name: state[name] for name in read if name in state and state[name].dtype in whole}


def test_uint8_and_int8_grids_are_equal(int8, samples):
    with torch.no_grad():
        assert torch.equal(as_uint8(int8)(samples), int8(samples))


def test_only_zero_points_and_limits_move_by_128(int8):
    shifted = as_uint8(int8)
    assert len(activations(int8)) > 20
    for before, after in zip(activations(int8), activations(shifted), strict=True):
        assert before.args[1] == after.args[1]
        assert after.args[2:] == (before.args[2] + 128, 0, 255, torch.uint8)
        assert before.args[3:] == (-128, 127, torch.int8)
    assert all(
        torch.equal(value, integers(shifted)[name]) for name, value in integers(int8).items()
    )


def test_uint8_leaves_the_graph_it_was_given_alone(int8, samples):
    before = int8(samples)
    code = int8.code
    as_uint8(int8)
    assert int8.code == code
    assert torch.equal(int8(samples), before)


def test_no_float_weight_is_left_in_a_finished_graph(int8):
    assert not any(n.target in QUANTIZE and is_constant(n.args[0]) for n in int8.graph.nodes)
    floats = [name for name, value in int8.named_parameters() if value.dim() > 1]
    assert floats == []
    weights = [value for value in integers(int8).values() if value.dim() > 1]
    assert len(weights) == 10
    assert all(value.dtype is torch.int8 for value in weights)


def test_folding_twice_changes_nothing(int8, samples):
    code, before = int8.code, int8(samples)
    fold_weights(int8)
    assert int8.code == code
    assert torch.equal(int8(samples), before)


def test_a_bias_is_stored_in_steps_of_input_scale_times_weight_scale():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, 0.0], [0.0, 2.54]]))
        layer.bias.copy_(torch.tensor([0.5, -0.25]))
    x = torch.tensor([[0.0, 2.55], [2.55, 0.0]])
    scheme = Scheme(activations="int8-affine")
    graph = finish_qat(prepare_qat(layer, x[:1], x, scheme), x[:1])
    linear = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default)
    bias = linear.args[2]
    # 0.01 * 0.01 and 0.01 * 0.02
    assert constant_of(graph, bias.args[1]).tolist() == pytest.approx([1e-4, 2e-4])
    assert constant_of(graph, bias.args[0]).dtype is torch.int32
    assert constant_of(graph, bias.args[0]).tolist() == [5000, -1250]


def test_every_bias_of_a_network_is_int32(int8):
    biases = [value for value in integers(int8).values() if value.dim() == 1]
    assert len(biases) == 10
    assert all(value.dtype is torch.int32 for value in biases)


@pytest.mark.parametrize("per_channel", [True, False])
def test_an_unfolded_graph_computes_the_same(network, samples, per_channel):
    scheme = Scheme(activations="int8-affine", per_channel=per_channel)
    graph = finish_qat(prepare_qat(network, samples[:1], samples, scheme), samples[:1])
    restored = unfolded(graph)
    with torch.no_grad():
        assert torch.equal(restored(samples), graph(samples))
    biases = [v for v in integers(restored).values() if v.dtype is torch.int32]
    assert biases == []


def test_quantizing_unfolded_weights_again_gives_the_same_integers(int8):
    again = unfolded(int8)
    fold_weights(again)
    before = [value for value in integers(int8).values() if value.dim() > 1]
    after = [value for value in integers(again).values() if value.dim() > 1]
    assert len(before) == len(after) == 10
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_nothing_in_a_finished_graph_is_trained(int8):
    assert not any(parameter.requires_grad for parameter in int8.parameters())
    assert not int8.training
