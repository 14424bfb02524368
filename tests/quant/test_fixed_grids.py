"""Results of sigmoid, softmax and tanh are on the grids that TFLite's kernels compute for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.quant import ops
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.fixed_grids import FixedGrid, fixed_grid
from edgekd.quant.learned_grids import learn_grids, settle_grids
from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE
from edgekd.values.target import Scheme

AFFINE = Scheme(activations="int8-affine")
UNIT = (1 / 256, -128)
SIGNED = (1 / 128, 0)


class Between(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.function = nn.Conv2d(3, 4, 1), function
        self.last = nn.Conv2d(channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.function(self.first(x)))
        return output


def calibrated(module: nn.Module, scheme: Scheme = AFFINE) -> fx.GraphModule:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return calibrate(module.eval(), x[:1], x, scheme)


def trained(module: nn.Module, scheme: Scheme = AFFINE, learned: bool = False) -> fx.GraphModule:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    graph = prepare_qat(module.eval(), x[:1], x, scheme)
    if learned:
        learn_grids(graph, "lsq")
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.1)
    graph.train()
    graph(x).square().mean().backward()
    optimizer.step()
    if learned:
        settle_grids(graph)
    freeze_ranges(graph)
    return finish_qat(graph, x[:1])


def lsq(module: nn.Module, scheme: Scheme = AFFINE) -> fx.GraphModule:
    return trained(module, scheme, learned=True)


def grids_after(graph: fx.GraphModule, *targets: object) -> set[tuple[float, int]]:
    """The grids of the quantize ops that read the results of these operators."""
    return {
        node.args[1:3]
        for node in graph.graph.nodes
        if node.target in QUANTIZE and node.args[0].target in targets
    }


@pytest.mark.parametrize("quantize", [calibrated, trained, lsq])
@pytest.mark.parametrize(
    ("function", "grid"), [(torch.sigmoid, UNIT), (torch.tanh, SIGNED), (nn.Softmax(1), UNIT)]
)
def test_the_grid_is_the_kernels_whatever_the_values_are(function, grid, quantize):
    graph = quantize(Between(function))
    assert grids_after(graph, *ops.FIXED) == {grid}


@pytest.mark.parametrize("quantize", [calibrated, trained])
def test_what_moves_or_pools_the_values_keeps_the_grid(quantize):
    graph = quantize(Between(lambda x: F.max_pool2d(torch.sigmoid(x), 2)[:, 1:], 3))
    moved = torch.ops.aten.max_pool2d.default, torch.ops.aten.slice.Tensor
    assert grids_after(graph, *moved) == {UNIT}


@pytest.mark.parametrize("quantize", [calibrated, trained])
def test_values_joined_with_others_are_put_on_another_grid_first(quantize):
    graph = quantize(Between(lambda x: torch.cat([torch.sigmoid(x), x], 1), 8))
    assert grids_after(graph, torch.ops.aten.sigmoid.default) == {UNIT}
    (joined,) = grids_after(graph, torch.ops.aten.cat.default)
    assert joined[0] > 2 * UNIT[0]
    read = [
        part.args[1:3]
        for node in graph.graph.nodes
        if node.target is torch.ops.aten.cat.default
        for part in node.args[0]
    ]
    assert read == [joined, joined]


def test_values_joined_with_their_like_stay_on_their_grid():
    graph = calibrated(Between(lambda x: torch.cat([torch.sigmoid(x), torch.sigmoid(-x)], 1), 8))
    assert grids_after(graph, torch.ops.aten.cat.default) == {UNIT}


@pytest.mark.parametrize(("value", "fits"), [(0.5, True), (0.0, True), (1.5, False), (-1.0, False)])
def test_a_padding_that_the_grid_lacks_has_another_grid(value, fits):
    graph = calibrated(Between(lambda x: F.pad(torch.sigmoid(x), (1, 1), value=value)))
    (padded,) = grids_after(graph, torch.ops.aten.pad.default)
    assert (padded == UNIT) is fits
    low, high = FixedGrid(*padded).low, FixedGrid(*padded).high
    assert low <= value <= high


def test_symmetric_activations_have_no_fixed_grids():
    graph = calibrated(Between(torch.sigmoid), Scheme(activations="int8-symmetric"))
    ((scale, zero_point),) = grids_after(graph, torch.ops.aten.sigmoid.default)
    assert zero_point == 0
    assert scale != UNIT[0]


def test_every_dequantize_op_has_the_grid_of_its_quantize_op():
    graph = calibrated(Between(lambda x: torch.cat([torch.tanh(x), torch.sigmoid(x), x], 1), 12))
    for node in graph.graph.nodes:
        if node.target in DEQUANTIZE and node.args[0].target in QUANTIZE:
            assert node.args[1:] == node.args[0].args[1:]


def test_the_ends_of_a_grid_are_its_extreme_codes():
    assert (FixedGrid(*UNIT).low, FixedGrid(*UNIT).high) == (0.0, 255 / 256)
    assert (FixedGrid(*SIGNED).low, FixedGrid(*SIGNED).high) == (-1.0, 127 / 128)


def test_a_layer_ends_what_is_on_a_fixed_grid():
    graph = export_graph(Between(torch.sigmoid), torch.rand(1, 3, 4, 4))
    fixed = [node.name for node in graph.graph.nodes if fixed_grid(node)]
    assert fixed == ["sigmoid"]


def test_a_small_value_that_a_large_one_joins_keeps_its_levels_elsewhere():
    graph = calibrated(Between(lambda x: torch.maximum(x * 50, x)))
    scales = _scales(graph)
    assert scales["mul"] / scales["conv2d"] == pytest.approx(50, rel=0.3)


def _scales(graph: fx.GraphModule) -> dict[str, float]:
    found: dict[str, float] = {}
    for node in graph.graph.nodes:
        if node.target in QUANTIZE:
            found.setdefault(node.args[0].name, node.args[1])
    return found
