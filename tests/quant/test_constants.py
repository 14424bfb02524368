"""Shared, tied and computed weights: each use has its own constant, and no name is given twice."""

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from edgekd.quant.calibration import calibrate
from edgekd.quant.constants import add_constant, constant_of, free_name, is_constant
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import float_islands
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.weight_only import finish_narrow, narrowed, weighted_layers
from edgekd.values.target import Scheme

aten = torch.ops.aten
SCHEME = Scheme(activations="uint8-affine", weight_bits=7)


def snr(expected: Tensor, found: Tensor) -> float:
    """Signal to noise in decibels."""
    noise = (expected - found).double().square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(expected.double().square().sum() / noise))


class TwoLevels(nn.Module):
    """One convolution on two levels of a pyramid; with `norms` batch norms, each level's own."""

    def __init__(self, norms: int, bias: bool = False) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=bias)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(norms))
        self.out = nn.Linear(16, 10)
        for norm in self.norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.uniform_(norm.running_var, 0.1, 0.4)
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.relu(self.stem(x))]
        levels.append(F.relu(self.down(levels[0])))
        outputs = []
        for number, level in enumerate(levels):
            level = self.conv(level)
            if len(self.norms):
                level = self.norms[number % len(self.norms)](level)
            outputs.append(F.relu(level).mean((2, 3)))
        output: Tensor = self.out(torch.cat(outputs, 1))
        return output


class Tied(nn.Module):
    """Two modules with one weight, and a weight that is read both straight and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x))))
        output: Tensor = self.last(F.linear(x, self.first.weight.t()))
        return output


NETWORKS = {
    "own-norms": (lambda: TwoLevels(2), (3, 16, 16)),
    "one-norm": (lambda: TwoLevels(1), (3, 16, 16)),
    "own-norms-bias": (lambda: TwoLevels(2, bias=True), (3, 16, 16)),
    "no-norm": (lambda: TwoLevels(0, bias=True), (3, 16, 16)),
    "tied": (Tied, (8,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shared_and_tied_weights_compute_what_the_module_does(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    module, x = make().eval(), torch.randn(32, *shape)
    with torch.no_grad():
        expected = module(x)
        graph = export_graph(module, x[:1])
        assert torch.allclose(graph(x), expected, atol=1e-5)
        assert sum(node.target is aten.batch_norm.default for node in graph.graph.nodes) == 0
        calibrated = calibrate(module, x[:1], x, SCHEME)
        trained = finish_qat(prepare_qat(module, x[:1], x, SCHEME), x[:1])
        assert snr(expected, calibrated(x)) > 25
        assert snr(expected, trained(x)) > 23
    assert float_islands(calibrated) == []
    assert float_islands(trained) == []


def test_a_shared_weight_is_stored_once_again_where_its_integers_are_equal():
    torch.manual_seed(0)
    module, x = TwoLevels(0, bias=True).eval(), torch.randn(16, 3, 16, 16)
    graph = calibrate(module, x[:1], x, SCHEME)
    reads = [str(n.target) for n in graph.graph.nodes if is_constant(n)]
    weights = [r for r in reads if constant_of(graph, _read(graph, r)).dim() == 4]
    assert len(weights) == 4
    assert len(set(weights)) == 3
    assert sum(p.dim() == 4 for p in [*graph.parameters(), *graph.buffers()]) == 3


def _read(graph: fx.GraphModule, name: str) -> fx.Node:
    return next(n for n in graph.graph.nodes if is_constant(n) and n.target == name)


def test_narrow_weights_of_a_shared_layer_compute_what_the_module_does():
    torch.manual_seed(0)
    module, x = TwoLevels(2).eval(), torch.randn(16, 3, 16, 16)
    graph = export_graph(module, x[:1])
    dtypes = dict.fromkeys(weighted_layers(graph), "int8")
    with torch.no_grad():
        assert snr(module(x), finish_narrow(narrowed(graph, dtypes, 0))(x)) > 38


def test_a_constant_name_is_unique():
    graph = export_graph(nn.Linear(2, 2), torch.rand(1, 2))
    add_constant(graph, "value", torch.zeros(1))
    with pytest.raises(ValueError, match="already has a constant 'value'"):
        add_constant(graph, "value", torch.ones(1))
    assert free_name(graph, "value") == "value_1"
    assert free_name(graph, "a.b") == "a_b"


class FixedMask(nn.Conv2d):
    """A masked convolution (PixelCNN's): its weight is computed in forward."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(3, 3).tril() * (torch.arange(3) < 2)
        return self._conv_forward(x, self.weight * mask, self.bias)


class Standardized(nn.Conv2d):
    """Weight standardization (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return self._conv_forward(x, (self.weight - mean) / deviation, self.bias)


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + weight.flip(-1)


def _pruned(layer: nn.Conv2d) -> nn.Conv2d:
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def _parametrized(layer: nn.Conv2d) -> nn.Conv2d:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def _spectral_hook(layer: nn.Conv2d) -> nn.Module:
    normed: nn.Module = nn.utils.spectral_norm(layer)
    normed.train()(torch.randn(1, 3, 6, 6))  # so that its estimate is not the random start
    return normed


COMPUTED = {
    "pruned": lambda: _pruned(nn.Conv2d(3, 8, 3)),
    "weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 8, 3)),
    "weight_norm-hook": lambda: nn.utils.weight_norm(nn.Conv2d(3, 8, 3)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)),
    "spectral_norm-hook": lambda: _spectral_hook(nn.Conv2d(3, 8, 3)),
    "parametrized": lambda: _parametrized(nn.Conv2d(3, 8, 3)),
    "masked-in-forward": lambda: FixedMask(3, 8, 3),
    "standardized": lambda: Standardized(3, 8, 3),
}


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_forward_computes_are_quantized_as_plain_ones(kind):
    torch.manual_seed(0)
    layers = [COMPUTED[kind](), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)]
    module, x = nn.Sequential(*layers).eval(), torch.randn(32, 3, 6, 6)
    expected = module(x).detach()  # with gradients on, as in training: hooks leave their graphs
    graph = export_graph(module, x[:1])
    layer = next(node for node in graph.graph.nodes if node.target is aten.conv2d.default)
    assert is_constant(layer.args[1])
    assert isinstance(constant_of(graph, layer.args[1]), nn.Parameter)
    with torch.no_grad():
        assert torch.allclose(graph(x), expected, atol=1e-5)
        calibrated = calibrate(module, x[:1], x, SCHEME)
        assert snr(expected, calibrated(x)) > 30
        assert torch.allclose(module(x), expected, atol=1e-6)  # left as it was
    assert float_islands(calibrated) == []
