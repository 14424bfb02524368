"""Cross-layer equalization: the same function in float, with weights that suit one scale."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.bias_absorption import absorb_biases
from edgekd.quant.calibration import calibrate
from edgekd.quant.channel_scaling import input_ranges, output_ranges
from edgekd.quant.equalization import equalize, pairs_of
from edgekd.quant.export import export_graph
from edgekd.quant.post_training import PostTraining
from edgekd.quant.preparing import NOTES
from edgekd.quant.qat import prepare_qat
from edgekd.values.target import Scheme

SCHEME = Scheme(activations="int8-affine", per_channel=False)


def uneven(module: nn.Module) -> nn.Module:
    """Output channels whose weights differ hundredfold, as after folded batch norms."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
                factors = torch.logspace(-1, 1, len(part.weight))
                part.weight.mul_(factors.view(-1, *[1] * (part.weight.dim() - 1)))
    return module.eval()


def separable(clamp: type[nn.Module] = nn.ReLU) -> nn.Module:
    """The chain of three of an inverted residual."""
    torch.manual_seed(0)
    return uneven(
        nn.Sequential(
            nn.Conv2d(3, 16, 1),
            clamp(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            clamp(),
            nn.Conv2d(16, 8, 1),
        )
    )


def images(number: int = 16) -> Tensor:
    return torch.randn(number, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_both_channels_get_the_root_of_the_product_of_their_ranges():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[8.0, -2.0], [1.0, 0.5]]))
        module[2].weight.copy_(torch.tensor([[0.5, 4.0]]))
    graph = export_graph(module, torch.ones(1, 2))
    assert equalize(graph, torch.rand(4, 2), True) == ["1 of 1 pairs of layers equalized"]
    (pair,) = pairs_of(graph)
    # sqrt(8 * 0.5) = 2, sqrt(1 * 4) = 2
    assert output_ranges(graph, pair.first).tolist() == pytest.approx([2.0, 2.0])
    assert input_ranges(graph, pair.second).tolist() == pytest.approx([2.0, 2.0])


FORMS = {
    "depthwise": separable,
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3)
    ),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(8 * 36, 4)
    ),
    "averaged": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 3, 1)
    ),
    "padded": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ZeroPad2d(1), nn.Conv2d(8, 4, 3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_float_network_computes_the_same(form):
    torch.manual_seed(0)
    module, x = uneven(FORMS[form]()), images()
    graph = export_graph(module, x[:1])
    number = len(pairs_of(graph))
    assert number == {"depthwise": 2, "grouped": 2}.get(form, 1)
    equalize(graph, x, True)
    with torch.no_grad():
        expected = module(x)
        assert float((graph(x) - expected).abs().max()) < 1e-6 * float(expected.abs().max())
    for pair in pairs_of(graph):
        spread = output_ranges(graph, pair.first)
        ends = input_ranges(graph, pair.second).view(-1, pair.repeats).amax(1)
        assert torch.allclose(spread, ends, rtol=0.01)


class Apart(nn.Module):
    """Networks with nothing between whose channels could be scaled."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.form == "read-twice":
            return self.second(y.relu()) + y
        if self.form == "sigmoid":
            return self.second(y.sigmoid())
        if self.form == "shifted":
            return self.second(y.relu() + 1.0)
        if self.form == "tokens-mixed":
            return self.second(y.transpose(1, 2))
        return self.second(nn.functional.max_pool1d(y, 3, 1, 1))


@pytest.mark.parametrize("form", ["read-twice", "sigmoid", "shifted", "tokens-mixed", "pooled"])
def test_layers_with_anything_else_between_are_no_pair(form):
    module, x = Apart(form).eval(), torch.randn(4, 8, 8)
    assert pairs_of(export_graph(module, x[:1])) == []


def test_one_scale_for_the_tensor_serves_an_equalized_network():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 3)), images(64)
    factors = torch.logspace(-1, 1, 16).view(-1, 1, 1, 1)
    with torch.no_grad():
        module[0].weight.mul_(factors)
        module[0].bias.mul_(factors.flatten())
        module[2].weight.div_(factors.view(1, -1, 1, 1))
    losses = []
    for choice in (False, True):
        graph = calibrate(module, x[:1], x, SCHEME, PostTraining(equalize=choice))
        with torch.no_grad():
            losses.append(float((graph(x) - module(x)).square().mean()))
    assert losses[1] < 0.2 * losses[0]
    assert "1 of 1 pairs of layers equalized" in graph.meta[NOTES]


def test_a_relu6_that_clips_is_left_alone_unless_told_otherwise():
    module, x = separable(nn.ReLU6), 10 * images()
    graph = export_graph(module, x[:1])
    counted, left = equalize(graph, x, True)
    assert counted == "0 of 2 pairs of layers equalized"
    assert "2 pairs are left alone, whose ReLU6 clips up to" in left
    assert 'equalize = "replace-relu6"' in left
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-4)
    replaced = calibrate(module, x[:1], x, SCHEME, PostTraining(equalize="replace-relu6"))
    notes = "; ".join(replaced.meta[NOTES])
    assert "2 of 2 pairs of layers equalized, 2 ReLU6 replaced by ReLU" in notes
    assert "in float the outputs change by" in notes


def test_a_relu6_that_no_sample_reaches_is_replaced_and_said_to_be():
    module, x = separable(nn.ReLU6), 0.001 * images()
    graph = export_graph(module, x[:1])
    notes = equalize(graph, x, True)
    assert notes == ["2 of 2 pairs of layers equalized, 2 ReLU6 replaced by ReLU"]
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-4)


def test_a_high_bias_moves_into_the_next_layer():
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.copy_(torch.tensor([20.0, 0.0]))
        module[2].weight.copy_(torch.tensor([[0.5, 1.0]]))
        module[2].bias.zero_()
    x = torch.tensor([[-1.0], [1.0]])
    graph = export_graph(module, x[:1])
    assert absorb_biases(graph, x) == ["1 high biases absorbed by the next layer"]
    (pair,) = pairs_of(graph)
    biases = [
        dict(graph.named_parameters())[str(layer.args[2].target)].tolist()
        for layer in (pair.first, pair.second)
    ]
    # c = mean 20 - 3 * deviation 1 = 17
    assert biases == [pytest.approx([3.0, 0.0]), pytest.approx([8.5])]
    assert torch.allclose(graph(x), module(x))


def test_training_starts_from_the_equalized_network():
    module, x = separable(), images()
    choices = PostTraining(equalize=True)
    graph = prepare_qat(module, x[:1], x, SCHEME, choices=choices)
    loss = graph.train()(x).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in graph.parameters() if p.requires_grad)
    assert "2 of 2 pairs of layers equalized" in graph.meta[NOTES]
