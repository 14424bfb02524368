"""What a quantization reaches is known, and required, before it runs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import EdgekdError
from edgekd.quant.export import export_graph
from edgekd.quant.reach import (
    Reach,
    reach_faults,
    reach_of_int8,
    reach_of_weights,
    strict_faults,
)


def reach(module: nn.Module, x: Tensor, find: Any = reach_of_int8) -> Reach:
    found: Reach = find(export_graph(module.eval(), x), x)
    return found


def message(faults: list[EdgekdError]) -> str:
    (fault,) = faults
    return f"{fault} | {fault.allowed} | {fault.hint}"


@pytest.mark.parametrize("find", [reach_of_int8, reach_of_weights])
def test_a_network_of_layers_is_reached_whole(find):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    found = reach(module, torch.randn(1, 3, 4, 4), find)
    assert found.share() == 1.0
    assert found.layers == {"0", "3"}
    assert reach_faults(found, 1.0, (), "int8", "stages.0") == []
    assert strict_faults(found, (), "stages.0") == []


def test_a_transposed_convolution_is_reached_by_int8():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 2, 2))
    assert reach(module, torch.randn(1, 3, 6, 6)).share() == 1.0


def test_less_than_the_share_is_refused_with_the_layers_that_stay():
    module = nn.Sequential(nn.Conv3d(2, 4, 1), nn.Flatten(), nn.Linear(32, 4))
    # The convolution has 2 * 4 * 8 = 64 MACs, the linear layer 32 * 4 = 128.
    found = reach(module, torch.randn(1, 2, 2, 2, 2))
    assert found.share() == pytest.approx(128 / 192)
    text = message(reach_faults(found, 0.9, (), "int8", "stages.0"))
    assert "int8 would reach 67% of the multiply-accumulates of layers with weights" in text
    assert "no quantized form for 0 (convolution, 33%)" in text
    assert "at least 90%" in text
    assert "least = 0.66" in text
    assert reach_faults(found, 0.6, (), "int8", "stages.0") == []


def test_an_ignored_layer_does_not_count():
    module = nn.Sequential(nn.Conv3d(2, 4, 1), nn.Flatten(), nn.Linear(32, 4))
    found = reach(module, torch.randn(1, 2, 2, 2, 2))
    assert found.share(["0"]) == 1.0
    assert reach_faults(found, 0.9, ["0"], "int8", "stages.0") == []


def test_strict_names_each_operator_without_an_integer_form():
    module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    text = message(strict_faults(reach(module, torch.randn(1, 4)), (), "stages.0"))
    assert "these operators have no integer form: aten.layer_norm (1)" in text
    assert "remove 'strict'" in text


def test_strict_and_ignored_layers_contradict_each_other():
    found = reach(nn.Linear(4, 2), torch.randn(1, 4))
    assert "layers are ignored" in message(strict_faults(found, ["x"], "stages.0"))
