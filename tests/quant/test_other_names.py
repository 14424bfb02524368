"""Operators by another name, or composed of others, are quantized like those they stand for."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import float_islands
from edgekd.values.target import load_target

EXPRESSIONS = (
    "x.swapaxes(1, 2)", "x.swapdims(1, 3)", "x.moveaxis(1, -1)", "x.moveaxis((1, 2), (2, 1))",
    "x.mT", "x.narrow(1, -3, 2)", "x.tensor_split(2, 1)[1]", "x.hsplit(2)[1]",
    "x.unsafe_chunk(2, 1)[0]", "torch.concat([x, -x], 1)", "torch.hstack([x, -x])",
    "torch.dstack([x, -x])", "torch.column_stack([x, -x])", "x.clip(-0.5, 0.5)", "x.clip(max=0.5)",
    "x.clamp_max(0.5)", "x.true_divide(2.0)", "x.divide(2.0)", "x.multiply(x)",
    "x.subtract(2.0 * x)", "x.negative()", "x.absolute()", "x.fliplr()", "torch.special.expit(x)",
    "x.arctan()", "x.repeat_interleave(2, 1)", "x.view_as(2.0 * x)", "x.type_as(2.0 * x)",
    "torch.atleast_3d(x)", "F.glu(x, 1)", "x.max(1).values", "x.min(2, keepdim=True)[0]",
    "torch.baddbmm(x[:, 0], x[:, 1], x[:, 2])", "torch.addcmul(x, x, x)",
    "torch.where(x > 0, x, 0.5)", "torch.where(x > 0, 0.5, x)", "x.masked_fill(x > 0, 0.5)",
    "F.threshold(x, 0.1, -0.2)", "F.interpolate(x, scale_factor=2, mode='nearest-exact')",
    "torch.einsum('bchw,bchv->bcwv', x, x)", "torch.einsum('b c h w, b c v w -> b v c h', x, x)",
    "torch.einsum('bchw,bdhw->bcd', x, x)", "torch.einsum('bchw->bwhc', x)",
)  # fmt: skip


class Network(nn.Module):
    def __init__(self, expression: str) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        names = {"torch": torch, "F": nn.functional}
        self.behind = eval(f"lambda x: {expression}", names)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.behind(self.convolution(x))
        return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_it_gives_the_same_and_is_in_integers(expression: str) -> None:
    torch.manual_seed(0)
    network, x = Network(expression).eval(), torch.randn(16, 4, 6, 6)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(export_graph(network, x[:1])(x), expected)
        scheme = load_target("raspberry-pi-4").quantization
        graph = calibrate(network, x[:1], x, scheme)
        assert float_islands(graph) == []
        largest = expected.abs().max()
        assert float((graph(x) - expected).square().mean().sqrt()) < 0.03 * largest


def test_the_largest_values_stay_beside_their_places_where_those_are_read() -> None:
    network, x = Network("x.max(1).indices + x.max(1).values").eval(), torch.randn(4, 4, 6, 6)
    torch.testing.assert_close(export_graph(network, x[:1])(x), network(x))


@pytest.mark.parametrize("low", ["-1e9", "float('-inf')", "torch.finfo(x.dtype).min"])
@pytest.mark.parametrize(
    "masking",
    ["x.masked_fill(hidden, {})", "torch.where(hidden, {}, x)", "torch.where(~hidden, x, {})"],
)
def test_low_numbers_mask_scores(masking: str, low: str) -> None:
    torch.manual_seed(0)
    hidden, scores = "torch.ones(6, 6).triu(1) > 0", masking.format(low)
    network = Network(f"(lambda hidden: torch.softmax({scores}, -1))({hidden})").eval()
    x = torch.randn(16, 4, 6, 6)
    graph = calibrate(network, x[:1], x, load_target("raspberry-pi-4").quantization)
    assert float_islands(graph) == []
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x), atol=0.02, rtol=0)
