"""Grids that are worked out by hand, and which operators share one."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.models.transformer import transformer
from edgekd.quant import ops
from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import constant_of
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import computes, float_islands
from edgekd.quant.preparing import NOTES
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.quantizer import ANNOTATION, TargetQuantizer, weight_limit
from edgekd.quant.rewrite import QUANTIZE, as_uint8, is_weight
from edgekd.values.target import Scheme

AFFINE = Scheme(activations="int8-affine")


def quantized(module: nn.Module, samples: Tensor, scheme: Scheme = AFFINE) -> fx.GraphModule:
    return finish_qat(prepare_qat(module, samples[:1], samples, scheme), samples[:1])


def grids(graph: fx.GraphModule) -> list[tuple[float, int]]:
    """(scale, zero point) of every quantized activation, in order."""
    nodes: list[Any] = [n for n in graph.graph.nodes if n.target in QUANTIZE and not is_weight(n)]
    return [(node.args[1], node.args[2]) for node in nodes]


def weight_scales(graph: fx.GraphModule) -> list[float]:
    node: Any = next(n for n in graph.graph.nodes if is_weight(n) and n.args[-1] is torch.int8)
    scale = node.args[1]
    return [scale] if isinstance(scale, float) else constant_of(graph, scale).tolist()


def ranged(low: float, high: float) -> Tensor:
    return torch.tensor([[low, 0.0, 0.1], [0.0, high, 0.2]])


@pytest.mark.parametrize(
    ("activations", "low", "high", "zero_point"),
    [
        ("uint8-affine", 0.0, 2.55, -128),
        ("int8-affine", 0.0, 2.55, -128),
        ("int8-affine", -1.0, 1.55, -28),
        ("int8-symmetric", -1.275, 1.0, 0),
        ("int8-symmetric", 0.0, 1.275, 0),
    ],
)
def test_an_input_grid_is_what_its_extremes_say(activations, low, high, zero_point):
    graph = quantized(nn.Linear(3, 2), ranged(low, high), Scheme(activations=activations))
    scale, found = grids(graph)[0]
    assert scale == pytest.approx(0.01, rel=1e-6)
    assert found == zero_point


def test_values_from_0_to_2_55_lie_on_a_uint8_grid_of_0_01_from_0():
    graph = as_uint8(quantized(nn.Linear(3, 2), ranged(0.0, 2.55)))
    scale, zero_point = grids(graph)[0]
    assert scale == pytest.approx(0.01, rel=1e-6)
    assert zero_point == 0


def two_rows() -> nn.Linear:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.126, -0.05, 0.0], [-1.26, 0.4, 0.1]]))
    return layer


@pytest.mark.parametrize(
    ("per_channel", "bits", "expected"),
    [
        (True, 8, [0.126 / 127, 1.26 / 127]),
        (True, 7, [0.126 / 63, 1.26 / 63]),
        (False, 8, [1.26 / 127]),
        (False, 7, [1.26 / 63]),
    ],
)
def test_a_weight_scale_is_the_largest_weight_over_the_largest_integer(per_channel, bits, expected):
    scheme = Scheme(activations="uint8-affine", per_channel=per_channel, weight_bits=bits)
    assert weight_scales(quantized(two_rows(), ranged(0, 1), scheme)) == pytest.approx(expected)
    assert weight_limit(scheme) == {8: 127, 7: 63}[bits]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_weights_next_to_nothing_have_a_scale_that_their_bias_can_be_divided_by(size, per_channel):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0 if per_channel else ...] *= size
        layer.bias[0] = 5.0
    x = ranged(0, 1)
    graph = quantized(layer, x, Scheme(activations="int8-affine", per_channel=per_channel))
    assert weight_scales(graph)[0] == pytest.approx(5.0 * 255 / 2**30)
    assert torch.allclose(graph(x)[:, 0], torch.tensor(5.0), atol=grids(graph)[-1][0])


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_the_grids_follow_the_numbers_however_small_or_large_they_are(size):
    x = ranged(-1, 1)
    plain, scaled = nn.Linear(3, 2), nn.Linear(3, 2)
    with torch.no_grad():
        for mine, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
            mine.copy_(theirs * size)
    expected = quantized(plain, x)(x)
    assert torch.allclose(quantized(scaled, x)(x) / size, expected, atol=0.02)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh()])
def test_a_clamp_behind_a_layer_is_fused_to_it(activation):
    graph = quantized(nn.Sequential(nn.Linear(3, 4), activation), ranged(0, 1))
    assert len(grids(graph)) == 2
    assert float_islands(graph) == []


def test_an_output_behind_a_relu_uses_all_256_steps_from_zero():
    graph = quantized(nn.Sequential(two_rows(), nn.ReLU()), ranged(0, 1))
    assert grids(graph)[-1][1] == -128


def test_pooling_and_flattening_keep_the_grid_of_their_input():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2))
    graph = quantized(network, torch.rand(4, 1, 6, 6))
    found = grids(graph)
    assert len(found) == 5  # the input, the convolution, the pool, the flatten and the output
    assert found[1] == found[2] == found[3]
    assert len({found[0], found[1], found[4]}) == 3


class Joined(nn.Module):
    """Two layers side by side, one of `size` times larger values than the other."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(3, 2), nn.Linear(3, 2)
        for layer, weight in ((self.small, 1.0), (self.large, size)):
            nn.init.constant_(layer.weight, weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.small(x), self.large(x)], 1)


def test_what_is_joined_lies_on_one_grid():
    found = grids(quantized(Joined(7.0), ranged(0, 1)))
    assert len(set(found[1:])) == 1
    assert found[1][0] * 255 == pytest.approx(7 * 1.2, rel=1e-3)


def test_values_that_one_grid_would_leave_few_levels_are_joined_in_float():
    x = ranged(0, 1)
    for graph in (quantized(Joined(9.0), x), calibrate(Joined(9.0), x[:1], x, AFFINE)):
        assert float_islands(graph) == ["aten.cat (cat)"]
        scales = [scale for scale, _ in grids(graph)[1:]]
        assert scales == pytest.approx([1.2 / 255, 9 * 1.2 / 255], rel=1e-3)
        assert graph.meta[NOTES] == (
            "'cat' joins values that differ in size by a factor of 9: they are joined in float, "
            "each part on its own grid",
        )


def test_a_residual_sum_has_a_grid_of_its_own(int8):
    sums = [node for node in int8.graph.nodes if node.target is torch.ops.aten.add.Tensor]
    assert len(sums) == 3
    assert float_islands(int8) == []


def test_all_of_a_transformer_but_its_norms_is_annotated():
    module = transformer(size=8, width=8, depth=1, heads=2, classes=4)
    graph = TargetQuantizer(AFFINE).annotate(export_graph(module, torch.rand(1, 1, 8, 8)))
    left = {
        ops.name_of(node)
        for node in graph.graph.nodes
        if computes(node) and ANNOTATION not in node.meta
    }
    assert left <= {"aten.layer_norm", "aten.div"}


class Remainder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fmod(x, 0.3)


@pytest.mark.parametrize("count", [2, 1])
def test_an_operator_that_is_in_no_table_is_named_as_a_float_island(count):
    middle = [Remainder() for _ in range(count)]
    network = nn.Sequential(nn.Linear(3, 4), *middle, nn.Linear(4, 2))
    islands = float_islands(quantized(network, ranged(0, 1)))
    assert sum("fmod" in name for name in islands) == count
