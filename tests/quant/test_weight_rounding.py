"""Weights rounded by what the layer's outputs lose."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.adaptive_rounding import adaround
from edgekd.quant.awq import best_factor, scale_salient
from edgekd.quant.calibration import calibrate
from edgekd.quant.coded_weights import CodedWeight
from edgekd.quant.export import export_graph
from edgekd.quant.gptq import gptq
from edgekd.quant.graph_blocks import blocks_of
from edgekd.quant.layer_moments import Moments, columns_of, moments_of
from edgekd.quant.narrow import grouped, rounded
from edgekd.quant.post_training import PostTraining
from edgekd.quant.preparing import NOTES
from edgekd.quant.rounding import reround
from edgekd.quant.weight_only import finish_narrow, narrowed, weighted_layers
from edgekd.values.target import Scheme

SCHEME = Scheme(activations="int8-affine")


def coded(step: float, shape: tuple[int, int], limit: int = 7) -> CodedWeight:
    return CodedWeight(None, torch.full(shape, step), -limit, limit)  # type: ignore[arg-type]


def moments(x: Tensor, weight: Tensor) -> Moments:
    """Those of a linear layer, x (n, k)."""
    graph = export_graph(nn.Linear(*reversed(weight.shape), bias=False), x[:1])
    (layer,) = weighted_layers(graph).values()
    return moments_of(layer, weight.shape, x, x @ weight.t())


def best(weight: Tensor, step: float, found: Moments) -> float:
    """The least error of all ways to round up or down."""
    base = (weight / step).floor()
    ways = itertools.product([0.0, 1.0], repeat=weight.numel())
    return min(float(found.error((base + torch.tensor(way)) * step)) for way in ways)


def test_the_moments_give_the_error_of_any_weight():
    torch.manual_seed(0)
    x, weight, other = torch.randn(50, 6), torch.randn(3, 6), torch.randn(3, 6)
    error = (x @ other.t() - x @ weight.t()).square().sum(1).mean()
    assert float(moments(x, weight).error(other)) == pytest.approx(float(error), rel=1e-4)


def test_the_gradient_of_the_error_is_that_of_the_outputs_error():
    torch.manual_seed(0)
    x, weight = torch.randn(50, 6), torch.randn(3, 6)
    other = torch.randn(3, 6, requires_grad=True)
    (found,) = torch.autograd.grad(moments(x, weight).error(other), other)
    error = (x @ other.t() - x @ weight.t()).square().sum(1).mean()
    (expected,) = torch.autograd.grad(error, other)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


LAYERS = {
    "linear": (nn.Linear(8, 4), (2, 5, 8)),
    "conv": (nn.Conv2d(8, 6, 3, stride=2, padding=1), (2, 8, 7, 7)),
    "dilated": (nn.Conv2d(8, 6, (3, 2), padding=(2, 1), dilation=2), (2, 8, 9, 9)),
    "grouped": (nn.Conv2d(8, 6, 3, groups=2), (2, 8, 7, 7)),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 7, 7)),
    "same": (nn.Conv2d(8, 6, 4, padding="same"), (2, 8, 7, 7)),
    "conv1d": (nn.Conv1d(8, 6, 3, stride=2, padding=2), (2, 8, 9)),
    "same1d": (nn.Conv1d(8, 6, 4, padding="same", dilation=2), (2, 8, 9)),
}


@pytest.mark.parametrize("form", LAYERS)
def test_a_layer_is_its_weight_times_its_columns(form):
    torch.manual_seed(0)
    module, shape = LAYERS[form]
    x = torch.randn(shape)
    (layer,) = weighted_layers(export_graph(module, x[:1])).values()
    columns = columns_of(layer, module.weight.shape, x)
    groups = len(columns)
    product = module.weight.flatten(1).view(groups, -1, columns.shape[1]) @ columns
    y = module(x)
    y = y.flatten(0, -2).t() if form == "linear" else y.movedim(1, 0).flatten(1)
    bias = module.bias[:, None]
    assert torch.allclose(product.reshape(len(bias), -1) + bias, y, atol=1e-5)
    along = module.bias if form == "linear" else bias.view(-1, *[1] * (x.dim() - 2))
    found = moments_of(layer, module.weight.shape, x, module(x) - along)
    assert abs(float(found.error(module.weight.flatten(1)))) < 1e-4


@pytest.mark.parametrize("method", ["adaround", "gptq"])
def test_correlated_inputs_are_rounded_against_each_other(method):
    # Both inputs are the same: 0.4 + 0.42 is best rounded to 1, not to 0 + 0.
    x = torch.ones(16, 2) * torch.linspace(-1, 1, 16)[:, None]
    weight = torch.tensor([[0.4, 0.42]])
    found, grid = moments(x, weight), coded(1.0, (1, 2))
    assert grid.nearest(weight).tolist() == [[0.0, 0.0]]
    codes = gptq(weight, grid, found) if method == "gptq" else adaround(weight, grid, found, 500)
    assert sorted(codes[0].tolist()) == [0.0, 1.0]


def test_adaround_finds_nearly_the_best_of_all_roundings():
    torch.manual_seed(0)
    x = torch.randn(64, 8) @ torch.randn(8, 8)
    weight = torch.randn(1, 8)
    found, grid = moments(x, weight), coded(0.5, (1, 8))
    codes = adaround(weight, grid, found, 500)
    assert set((codes - (weight / 0.5).floor()).flatten().tolist()) <= {0.0, 1.0}
    error = float(found.error(codes * 0.5))
    nearest = float(found.error(grid.nearest(weight) * 0.5))
    assert best(weight, 0.5, found) <= error * (1 + 1e-4)
    assert error < 0.6 * nearest
    assert error < 1.5 * best(weight, 0.5, found)


def test_gptq_of_uncorrelated_inputs_is_rounding_to_nearest():
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    found = Moments(torch.eye(8)[None], weight[None], float(weight.square().sum()))
    grid = coded(0.3, (4, 8))
    assert torch.equal(gptq(weight, grid, found), grid.nearest(weight))


def test_an_input_that_is_always_zero_does_not_matter_to_gptq():
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    x[:, 1] = 0.0
    weight = torch.randn(2, 4)
    codes = gptq(weight, coded(0.3, (2, 4)), moments(x, weight))
    assert bool(codes.isfinite().all())


@pytest.mark.parametrize("method", ["adaround", "blocks", "gptq"])
def test_the_int8_network_comes_nearer_to_float(method, network, samples):
    scheme = Scheme(activations="int8-affine", weight_bits=7)
    errors = []
    for rounding in ("nearest", method):
        choices = PostTraining(rounding=rounding, rounding_steps=200)
        graph = calibrate(network, samples[:1], samples, scheme, choices)
        with torch.no_grad():
            errors.append(float((graph(samples) - network(samples)).square().mean()))
    assert errors[1] < 1.1 * errors[0]
    assert f"{method}: " in graph.meta[NOTES][0]


@pytest.mark.parametrize("method", ["adaround", "gptq", "blocks"])
@pytest.mark.parametrize("group", [0, 16])
def test_int4_weights_lose_much_less(method, group):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)).eval()
    x = torch.randn(256, 64) @ torch.randn(64, 64) / 8
    whole = export_graph(module, x[:1])
    dtypes = dict.fromkeys(weighted_layers(whole), "int4")
    graph = finish_narrow(narrowed(whole, dtypes, group, search=True))
    with torch.no_grad():
        before = float((graph(x) - module(x)).square().mean())
        note = reround(whole, graph, x, method, 300)
        after = float((graph(x) - module(x)).square().mean())
    assert after < 0.85 * before
    number = "1 of 1 blocks" if method == "blocks" else "2 of 2 layers"
    assert note.startswith(f"{method}: {number} lose less")


def test_a_weight_that_two_layers_read_keeps_the_nearest_integers():
    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    module = nn.Sequential(shared, nn.ReLU(), shared).eval()
    x = torch.randn(64, 8)
    whole = export_graph(module, x[:1])
    dtypes = dict.fromkeys(weighted_layers(whole), "int4")
    graph = finish_narrow(narrowed(whole, dtypes, 0, search=True))
    assert reround(whole, graph, x, "gptq") == "gptq: no layer has a weight of its own"


def test_awq_gives_the_weights_of_large_inputs_a_finer_grid():
    torch.manual_seed(0)
    x, weight = torch.randn(256, 32), torch.randn(16, 32)
    x[:, :2] *= 30.0
    factor, share = best_factor(x, [weight], 0, 7)
    assert float(factor[:2].min()) > 2 * float(factor[2:].max())
    assert share < 0.6
    codes, scales = rounded(grouped(weight * factor, 32), 7)
    narrow = (codes * scales).view_as(weight) / factor
    plain = (lambda c, s: (c * s).view_as(weight))(*rounded(grouped(weight, 32), 7))
    errors = [float((x @ (each - weight).t()).square().sum()) for each in (narrow, plain)]
    assert errors[0] / errors[1] == pytest.approx(share, rel=1e-3)


@pytest.mark.parametrize("normed", [True, False], ids=["layer-norm", "input"])
def test_awq_leaves_the_float_network_as_it_was(normed):
    torch.manual_seed(0)
    first: nn.Module = nn.LayerNorm(32) if normed else nn.Identity()
    module = nn.Sequential(first, nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 8)).eval()
    x = torch.randn(64, 32) * torch.logspace(0, 1.5, 32)
    graph = export_graph(module, x[:1])
    note = scale_salient(graph, x, 0, 7)
    assert note.startswith("AWQ: ")
    assert ("operator of its own" in note) is True  # behind the GELU
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-4)


def test_blocks_end_where_one_value_is_all_that_is_passed_on(network, samples):
    graph = export_graph(network, samples[:1])
    names = [node.name for node in weighted_layers(graph).values()]
    blocks = blocks_of(graph, names)
    assert [name for block in blocks for name in block.layers] == names
    nodes = {node.name: number for number, node in enumerate(graph.graph.nodes)}
    for block in blocks:
        inside = range(nodes[block.entry] + 1, nodes[block.end] + 1)
        for node in graph.graph.nodes:
            if nodes[node.name] in inside and node.op != "get_attr":
                for source in node.all_input_nodes:
                    known = nodes[source.name] in inside or source.name == block.entry
                    assert known or source.op == "get_attr"


def test_layers_under_one_long_skip_connection_are_in_no_block():
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(9)])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layers(x)

    graph = export_graph(Long().eval(), torch.zeros(1, 4))
    names = [node.name for node in weighted_layers(graph).values()]
    assert blocks_of(graph, names) == []
    assert blocks_of(graph, names[:8])[0].layers == tuple(names[:8])
