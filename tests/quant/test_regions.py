"""What must stay in float does, and nothing beside it; every result is held against the module."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import float_islands
from edgekd.quant.preparing import NOTES
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.rewrite import QUANTIZE, as_uint8
from edgekd.values.target import Scheme

aten = torch.ops.aten
AFFINE = Scheme(activations="int8-affine")


def snr(expected: Tensor, found: Tensor) -> float:
    """Signal to noise in decibels."""
    noise = (expected - found).double().square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(expected.double().square().sum() / noise))


class Net(nn.Module):
    """A residual trunk of 8 channels and what `end` makes of it."""

    def __init__(self, end: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.side, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.norm, self.group = nn.LayerNorm(8), nn.GroupNorm(2, 8)
        self.map = nn.Parameter(torch.rand(1, 8, 8, 8) * 3 - 0.7)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.max_pool2d(F.relu(x + self.body(x)), 3, 1, 1)
        return self.end(self, x)


def _attention(net: Net, x: Tensor) -> Tensor:
    """A non-local block (Wang et al. 2018) in the middle."""
    tokens = net.side(x).flatten(2).transpose(1, 2)
    weights = torch.softmax(tokens @ tokens.transpose(1, 2) / 8**0.5, -1)
    mixed = (weights @ tokens).transpose(1, 2).reshape(x.shape)
    return _classes(net, x + net.body(mixed))


def _classes(net: Net, x: Tensor) -> Tensor:
    logits: Tensor = net.last(F.adaptive_avg_pool2d(x, 1).flatten(1))
    return logits


FLOAT_PARTS: dict[str, tuple[Callable[[Net, Tensor], Tensor], set[str]]] = {
    "softmax at the end": (lambda net, x: _classes(net, x).softmax(1), {"softmax"}),
    "softmax over channels": (lambda net, x: net.side(x).softmax(1), {"softmax"}),
    "pool, then softmax": (
        lambda net, x: F.adaptive_avg_pool2d(net.side(x), 1).flatten(1).softmax(1), {"softmax"}
    ),
    "sum of parts": (lambda net, x: net.last(x.sum((2, 3))), {"sum"}),
    "group norm": (lambda net, x: _classes(net, x + net.side(F.relu(net.group(net.side(x))))),
                   {"group_norm", "relu"}),
    "bilinear": (lambda net, x: net.side(F.interpolate(x, scale_factor=2, mode="bilinear")),
                 {"upsample_bilinear2d"}),
    "gelu": (lambda net, x: _classes(net, F.gelu(net.side(x))), {"gelu"}),
    "attention": (_attention, {"softmax", "matmul", "div", "transpose", "flatten", "reshape"}),
    "unit length": (lambda net, x: F.normalize(_classes(net, x), dim=1),
                    {"linalg_vector_norm", "clamp_min", "expand_as", "div"}),
    "layer norm": (lambda net, x: net.last(net.norm(x.permute(0, 2, 3, 1)).mean((1, 2))),
                   {"permute", "layer_norm", "mean", "max_pool2d"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOAT_PARTS)
def test_only_what_must_be_float_is_float_and_named(kind):
    end, expected = FLOAT_PARTS[kind]
    torch.manual_seed(0)
    module, x = Net(end).eval(), torch.randn(16, 3, 8, 8)
    graph = calibrate(module, x[:1], x, AFFINE)
    found = {name.split(" ")[0].removeprefix("aten.") for name in float_islands(graph)}
    assert found <= expected
    with torch.no_grad():
        assert snr(module(x), graph(x)) > 27


INTEGER_ENDS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "map added": lambda net, x: _classes(net, net.side(x + net.map)),
    "map first": lambda net, x: _classes(net, net.side(net.map - x)),
    "map multiplied": lambda net, x: _classes(net, net.side(x * net.map)),
    "per channel": lambda net, x: _classes(net, net.side((x - net.map[:, :, :1, :1]) / 0.3)),
    "numbers": lambda net, x: _classes(net, net.side(x * 2.0 - 0.5)),
    "divided": lambda net, x: _classes(net, net.side(x / (net.map.abs() + 0.5))),
    "one minus": lambda net, x: _classes(net, net.side(1.0 - x.sigmoid())),
    "gate": lambda net, x: _classes(net, x * net.side(x).sigmoid()),
    "square": lambda net, x: _classes(net, net.side(x * x + x)),
    "number from shape": lambda net, x: _classes(net, net.side(x + torch.arange(8.0) / 8)),
    "chunk": lambda net, x: _classes(net, torch.cat(net.side(x).chunk(2, 1)[::-1], 1)),
    "split": lambda net, x: _classes(net, torch.cat(net.side(x).split([3, 5], 1)[::-1], 1)),
    "select": lambda net, x: net.last(net.side(x)[:, :, -1, 2]),
    "means of uneven windows": lambda net, x: net.last(F.adaptive_avg_pool2d(x, (3, 4))[..., 1, 2]),
    "rows joined with a map": lambda net, x: _classes(
        net, net.side(torch.cat([x[:, :4], net.map[:, :4, :, :1].expand(x.size(0), -1, 8, 8)], 1))),
    "columns expanded": lambda net, x: _classes(
        net, net.side(torch.cat([x[:, :4], x.amax(3, True)[:, 4:].expand(-1, -1, 8, 8)], 1))),
    "uneven windows": lambda net, x: net.last(F.adaptive_max_pool2d(x, (3, 5))[..., 0, 0]),
    "global maximum": lambda net, x: net.last(F.adaptive_max_pool2d(x, 1).flatten(1)),
    "shape from size": lambda net, x: net.last(x.mean((2, 3)).view(x.size(0), 8)),
    "joined with signed": lambda net, x: _classes(net, F.relu(net.side(x)) + torch.cat(
        [F.relu(net.side(x))[:, :4], net.side(x)[:, 4:]], 1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", INTEGER_ENDS)
@pytest.mark.parametrize("bits", [7, 8])
def test_constants_and_moves_compute_in_integers_and_right(kind, bits):
    torch.manual_seed(0)
    module, x = Net(INTEGER_ENDS[kind]).eval(), torch.randn(16, 3, 8, 8)
    graph = calibrate(module, x[:1], x, Scheme(activations="uint8-affine", weight_bits=bits))
    assert float_islands(graph) == []
    with torch.no_grad():
        assert snr(module(x), graph(x)) > 27
        assert torch.equal(as_uint8(graph)(x), graph(x))


def test_a_padding_of_minus_infinity_belongs_to_the_pool():
    class Same(nn.Module):
        """TensorFlow's padding: one row and column behind."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(self.first(x) - 1.0, (0, 1, 0, 1), value=float("-inf"))
            output: Tensor = self.last(F.max_pool2d(x, 3, 2))
            return output

    torch.manual_seed(0)
    module, x = Same().eval(), torch.randn(16, 3, 8, 8)
    for graph in (
        calibrate(module, x[:1], x, AFFINE),
        finish_qat(prepare_qat(module, x[:1], x, AFFINE), x[:1]),
    ):
        assert float_islands(graph) == []
        with torch.no_grad():
            assert snr(module(x), graph(x)) > 30


class Ids(nn.Module):
    """Numbers of shops in column 0, measurements in the others."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.last = (
            nn.Embedding(5000, 8),
            nn.Linear(12, 16),
            nn.Linear(16, 4),
        )
        self.register_buffer("offsets", torch.tensor([0]))

    def forward(self, x: Tensor) -> Tensor:
        shop = self.table(x[:, :1].clamp(min=0).long() + self.offsets).flatten(1)
        output: Tensor = self.last(F.relu(self.first(torch.cat([shop, x[:, 1:]], 1))))
        return output


def test_ids_stay_whole_numbers_and_what_follows_them_is_quantized():
    torch.manual_seed(0)
    ids = torch.randint(0, 5000, (64, 1)).float()
    module, x = Ids().eval(), torch.cat([ids, torch.randn(64, 4)], 1)
    for graph in (
        calibrate(module, x[:1], x, AFFINE),
        finish_qat(prepare_qat(module, x[:1], x, AFFINE), x[:1]),
    ):
        assert not any("linear" in name for name in float_islands(graph))
        placeholder = next(node for node in graph.graph.nodes if node.op == "placeholder")
        assert not any(user.target in QUANTIZE for user in placeholder.users)
        with torch.no_grad():
            assert snr(module(x), graph(x)) > 30


class Boxes(nn.Module):
    """Boxes in pixels and scores from 0 to 1 in one output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.box, self.score = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        boxes, scores = self.box(x).flatten(2) * 32 + 160, self.score(x).flatten(2).sigmoid()
        return torch.cat([boxes, scores], 1)


def test_scores_beside_boxes_keep_their_levels_and_it_is_said():
    torch.manual_seed(0)
    module, x = Boxes().eval(), torch.randn(16, 3, 8, 8)
    graph = calibrate(module, x[:1], x, AFFINE)
    with torch.no_grad():
        assert float((module(x) - graph(x))[:, 4:].abs().max()) < 0.02
    assert float_islands(graph) == ["aten.cat (cat)"]
    assert "each part on its own grid" in graph.meta[NOTES][0]


def test_a_layer_with_its_relu_keeps_a_grid_from_zero_beside_a_signed_one():
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([F.max_pool2d(F.relu(self.one(x)), 2), self.two(x)[..., ::2, ::2]], 1)

    torch.manual_seed(0)
    x = torch.randn(16, 3, 8, 8)
    graph = calibrate(Skip().eval(), x[:1], x, AFFINE)
    clamp = next(node for node in graph.graph.nodes if node.target is aten.relu.default)
    (quantize,) = clamp.users
    assert quantize.args[2] == -128
    assert not any(node.target is aten.alias.default for node in graph.graph.nodes)


def test_complex_numbers_stay_in_float_and_the_layers_around_them_are_quantized():
    torch.manual_seed(0)
    net = Net(lambda net, x: net.last(torch.fft.rfft(x.mean(2)).abs().mean(2))).eval()
    samples = torch.randn(16, 3, 8, 8)
    graph = calibrate(net, samples[:1], samples, AFFINE)
    assert snr(net(samples), graph(samples)) > 25
    layers = [node for node in graph.graph.nodes if node.target is aten.conv2d.default]
    assert all("dequantize" in str(node.args[0].target) for node in layers)
    assert {island.split()[0] for island in float_islands(graph)} == {"aten.fft_rfft", "aten.abs"}


def test_a_function_of_whole_numbers_gets_no_grid_for_them():
    torch.manual_seed(0)
    net = Net(lambda net, x: net.last(x.mean((2, 3))) + torch.exp(-x.amax((2, 3)).long()[:, :5]))
    samples = torch.randn(16, 3, 8, 8)
    graph = calibrate(net.eval(), samples[:1], samples, AFFINE)
    assert snr(net(samples), graph(samples)) > 15
    assert "aten.exp (exp)" in float_islands(graph)
