"""A graph that computes something else than its network is found, with the first layer of it."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.data.samples import Samples
from edgekd.errors import InputError, ToolError
from edgekd.models.resnet import resnet8
from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import constant_of
from edgekd.quant.export import export_graph
from edgekd.quant.export_check import check_exported, first_wrong_layer
from edgekd.values.target import Scheme


@pytest.fixture
def parts() -> tuple[nn.Module, Tensor, fx.GraphModule]:
    """A network with folded norms, samples of it, and its graph."""
    torch.manual_seed(0)
    module, x = resnet8(channels=1, widths=(8, 12, 16)), torch.randn(12, 1, 16, 16)
    with torch.no_grad():
        module(x)  # the norms get statistics of their own
    return module.eval(), x, export_graph(module, x[:1])


def _layer(graph: fx.GraphModule, path: str) -> fx.Node:
    from edgekd.network.fx_names import layer_of

    weighted = ("conv", "linear", "addmm")
    return next(
        node
        for node in graph.graph.nodes
        if layer_of(node) == path and str(node.target).removeprefix("aten.").startswith(weighted)
    )


def test_a_right_graph_passes_on_any_number_of_samples(parts):
    module, x, graph = parts
    for count in (0, 1, 12):
        check_exported(graph, module, x[:count])
    assert first_wrong_layer(graph, module, x[:2]) == "after layer 'classifier'"


def _zero(value: Tensor) -> None:
    value.zero_()


def _swap(value: Tensor) -> None:
    value.copy_(value.flip(0))


def _scale(value: Tensor) -> None:
    value.mul_(1.002)


@pytest.mark.parametrize(
    ("layer", "argument", "fault"),
    [
        ("stem.0", 1, _scale),
        ("stages.0.0.conv2", 2, _zero),
        ("stages.1.0.conv1", 1, _swap),
        ("stages.2.0.shortcut", 1, _swap),
        ("classifier", 2, _zero),
    ],
)
def test_the_layer_of_a_planted_fault_is_named(parts, layer, argument, fault):
    module, x, graph = parts
    with torch.no_grad():
        fault(constant_of(graph, _layer(graph, layer).args[argument]))
    message = f"differs from the network at layer '{layer}': the outputs differ by"
    with pytest.raises(ToolError, match=message) as caught:
        check_exported(graph, module, x, "stages.2")
    assert caught.value.where == "stages.2"
    assert "a fault of the conversion, not of the training" in caught.value.hint


class Doubled(nn.Module):
    """Computes behind its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.shift = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(torch.relu(self.first(x))) * 2 + self.shift
        return output


def test_a_constant_overwritten_behind_the_layers_is_placed_there():
    torch.manual_seed(0)
    module, x = Doubled().eval(), torch.randn(5, 4)
    graph = export_graph(module, x[:1])
    with torch.no_grad():
        dict(graph.named_parameters())["shift"].fill_(3.0)
    with pytest.raises(ToolError, match="from the network after layer 'last'"):
        check_exported(graph, module, x)


def test_only_one_sample_that_differs_is_enough():
    module, x = nn.Sequential(nn.Linear(2, 2)).eval(), torch.randn(1500, 2)
    graph = export_graph(module, x[:1])
    with torch.no_grad():
        weight = constant_of(graph, _layer(graph, "0").args[1])
        weight[0, 0] += 1e-3
    x[:, 0] = 0.0
    y = torch.zeros(1500, dtype=torch.int64)
    check_exported(graph, module, Samples(x, y))
    x[1400, 0] = 1e3
    for samples in (x, Samples(x, y)):
        with pytest.raises(ToolError, match="at layer '0'"):
            check_exported(graph, module, samples)


class Merged(nn.Module):
    """Two branches that the export makes one convolution, and a layer behind."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, padding=1)
        self.point, self.act, self.last = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.act(self.wide(x) + self.point(x)))
        return output


def test_branches_that_were_merged_are_not_blamed_for_a_fault_behind_them():
    torch.manual_seed(0)
    module, x = Merged().eval(), torch.randn(4, 3, 6, 6)
    graph = export_graph(module, x[:1])
    assert sum("conv" in str(node.target) for node in graph.graph.nodes) == 2
    with torch.no_grad():
        constant_of(graph, _layer(graph, "last").args[1])[0] += 0.5
    with pytest.raises(ToolError, match="at layer 'last'"):
        check_exported(graph, module, x)


class Noisy(nn.Module):
    """Dropout that is always on."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def test_a_network_that_draws_random_numbers_is_the_users_and_said_to_be():
    module, x = nn.Sequential(nn.Linear(4, 4), Noisy()).eval(), torch.randn(8, 4)
    with pytest.raises(InputError, match="gives different outputs each time") as caught:
        check_exported(export_graph(module, x[:1]), module, x)
    assert "must not draw random numbers" in caught.value.hint


def test_outputs_that_are_not_finite_in_the_graph_alone_are_an_error():
    module, x = nn.Sequential(nn.Linear(2, 2)).eval(), torch.randn(3, 2)
    graph = export_graph(module, x[:1])
    with torch.no_grad():
        constant_of(graph, _layer(graph, "0").args[2]).fill_(torch.nan)
    with pytest.raises(ToolError, match="differ by inf"):
        check_exported(graph, module, x)


def test_calibration_refuses_a_graph_that_its_export_spoilt(parts, monkeypatch):
    module, x, _ = parts

    def spoilt(*arguments: object) -> fx.GraphModule:
        graph = export_graph(*arguments)
        with torch.no_grad():
            constant_of(graph, _layer(graph, "stem.0").args[2]).add_(1.0)
        return graph

    monkeypatch.setattr("edgekd.quant.preparing.export_graph", spoilt)
    with pytest.raises(ToolError, match=r"at layer 'stem\.0'"):
        calibrate(module, x[:1], x, Scheme(activations="int8-affine"))
