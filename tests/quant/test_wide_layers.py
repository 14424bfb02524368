"""Which operators compute in 16 bits where a layer does, and on which grids."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.network.cost import layer_costs
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import activation_bits, integer_precision, wide_layers
from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.operands import make_operands_tensors
from edgekd.quant.post_training import PostTraining
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.rewrite import QUANTIZE, is_weight
from edgekd.quant.trials import Int8Trial
from edgekd.quant.wide_layers import EVERY_LAYER, mark_wide, wide_nodes
from edgekd.quant.wide_share import wide_note
from edgekd.quant.widths import bits_read, bits_written
from edgekd.values.target import Scheme

SCHEME = Scheme(activations="int8-affine")
SAMPLES = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Joined(nn.Module):
    """A residual sum, a concatenation, a mean and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.side, self.join = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.deep(x)) + x
        x = self.join(torch.cat([y, self.side(x)], 1))
        output: Tensor = self.head(x.mean([2, 3]))
        return output


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Joined().eval()


def prepared(module: nn.Module) -> fx.GraphModule:
    graph = export_graph(module, SAMPLES[:1])
    make_operands_tensors(graph)
    return graph


def names_of(graph: fx.GraphModule, layers: tuple[str, ...], floats: Any = ()) -> set[str]:
    wide = wide_nodes(graph, layers, floats)
    return {node.name for node in graph.graph.nodes if node in wide}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("head",), {"mean", "linear"}),
        # Its clamp belongs to it, the stem writes what it reads, the sum reads what it writes.
        (("deep",), {"conv2d", "relu", "conv2d_1", "relu_1", "add"}),
        # A concatenation only moves values: who reads it is next to the layer.
        (("side",), {"conv2d", "relu", "conv2d_2", "cat", "conv2d_3"}),
    ],
)
def test_what_reads_and_writes_a_layer_s_values_computes_in_16_bits(module, layers, expected):
    assert names_of(prepared(module), layers) == expected


def test_a_layer_next_to_one_in_float_is_wide_alone(module):
    assert names_of(prepared(module), ("deep",), ["stem"]) == {"conv2d_1", "relu_1", "add"}


def test_every_layer_is_wide_where_all_are_named(module):
    graph = prepared(module)
    calls = {node.name for node in graph.graph.nodes if node.op == "call_function"}
    assert names_of(graph, EVERY_LAYER) == calls


def test_values_change_their_grid_where_their_width_changes(module):
    graph = prepared(module)
    mark_wide(graph, ("side",))
    borders = {
        node.args[0].name: (bits_read(node), bits_written(node))
        for node in graph.graph.nodes
        if node.target is torch.ops.aten.alias.default
    }
    # Eight bits read the stem for the other branch; the sum is joined with 16 bits. The input,
    # which nothing of eight bits reads, has 16.
    assert borders == {"relu": (16, 8), "add": (8, 16), "conv2d_3": (16, 8)}
    with torch.no_grad():
        assert torch.equal(graph(SAMPLES), prepared(module)(SAMPLES))


def grids(graph: fx.GraphModule) -> dict[str, tuple[Any, ...]]:
    """(scale, zero point, type) by what is put on the grid."""
    nodes: list[Any] = [n for n in graph.graph.nodes if n.target in QUANTIZE and not is_weight(n)]
    return {node.args[0].name: (*node.args[1:3], node.args[-1]) for node in nodes}


def test_a_wide_grid_has_the_calibrated_range_in_32767_steps_to_each_side(module):
    graph = calibrate(
        module,
        SAMPLES[:1],
        SAMPLES,
        SCHEME,
        PostTraining(wide=("head",), bias_correction=False),
    )
    with torch.no_grad():
        largest = float(module(SAMPLES).abs().max())
    scale, zero, kind = grids(graph)["linear"]
    assert (zero, kind) == (0, torch.int16)
    # The range of eight bits that it is made of reaches half a step of those further.
    assert scale == pytest.approx(largest / 32767, rel=1 / 127)
    assert {value for value, grid in grids(graph).items() if grid[2] is torch.int16} >= {"linear"}


@pytest.mark.parametrize("layers", [("head",), ("deep", "side"), EVERY_LAYER])
def test_training_and_calibration_have_the_same_widths(module, layers):
    calibrated = calibrate(module, SAMPLES[:1], SAMPLES, SCHEME, PostTraining(wide=layers))
    graph = prepare_qat(module, SAMPLES[:1], SAMPLES, SCHEME, choices=PostTraining(wide=layers))
    trained = finish_qat(graph, SAMPLES[:1])
    kinds = [
        sorted(str(grid[2]) for grid in grids(each).values()) for each in (calibrated, trained)
    ]
    assert kinds[0] == kinds[1]
    assert wide_layers(calibrated) == wide_layers(trained)


def test_a_wide_head_saves_the_rounding_of_the_outputs(module):
    def noise(wide: tuple[str, ...]) -> float:
        graph = calibrate(module, SAMPLES[:1], SAMPLES, SCHEME, PostTraining(wide=wide))
        with torch.no_grad():
            return signal_to_noise(module(SAMPLES), graph(SAMPLES))

    narrow, head, whole = noise(()), noise(("head",)), noise(EVERY_LAYER)
    assert head > narrow + 4
    assert whole > head + 4


def test_the_report_says_which_layers_and_how_many_macs(module):
    graph = calibrate(module, SAMPLES[:1], SAMPLES, SCHEME, PostTraining(wide=("head",)))
    assert activation_bits(graph) == {8, 16}
    assert integer_precision(graph) == "int8+int16"
    # head: 8 x 4 of 64 x (3 x 8 x 9 + 8 x 8 x 9 + 8 x 8 + 16 x 8) + 32 = 63,008
    costs = layer_costs(module, SAMPLES[:1])
    expected = "; 16-bit activations in 1 layer (head) with 0.0508 % of the multiply-accumulates"
    assert wide_note(graph, costs) == expected
    assert integer_precision(calibrate(module, SAMPLES[:1], SAMPLES, SCHEME)) == "int8"


def test_a_trial_rounds_nothing_that_a_wide_layer_reads_or_writes(module):
    trial = Int8Trial(prepare_qat(module, SAMPLES[:1], SAMPLES, SCHEME), "int16")
    with torch.no_grad():
        expected = module(SAMPLES)
        noises = {}
        for name in trial.layers:
            trial.narrow([other for other in trial.layers if other != name])
            noises[name] = signal_to_noise(expected, trial.graph(SAMPLES))
        trial.narrow(trial.layers)
        whole = signal_to_noise(expected, trial.graph(SAMPLES))
    assert max(noises, key=lambda name: noises[name]) == "head"
    assert noises["head"] > whole + 2
