"""Residual sums are on one int8 grid unless a norm would amplify their rounding too far."""

import math

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import float_islands
from edgekd.quant.preparing import NOTES
from edgekd.quant.residual_sums import token_noise
from edgekd.values.target import Scheme

AFFINE = Scheme(activations="int8-affine")


class Residual(nn.Module):
    """A block of a Transformer on 4 tokens of 8 features, the first `size` times the others."""

    def __init__(self, size: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.register_buffer("sizes", torch.tensor([size, 1.0, 1.0, 1.0])[:, None])
        self.gamma = nn.Parameter(torch.full((8,), 1e-7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) * self.sizes
        x = x + self.inner(self.norms[0](x)) * 0.01
        x = x + self.gamma * x.relu()
        output: Tensor = self.last(self.norms[1](x))
        return output


def test_the_smallest_token_decides():
    value = torch.tensor([[[-1.0, 1.0], [-0.01, 0.01]]])
    # The variance of the second token is 1e-4, a step is 2/255.
    assert token_noise(value) == pytest.approx(10 * math.log10(1e-4 / ((2 / 255) ** 2 / 12)))


@pytest.mark.parametrize(("size", "apart"), [(1.0, False), (0.01, True)])
def test_a_sum_with_a_tiny_token_stays_in_float_and_it_is_said(size, apart):
    module = Residual(size).eval()
    x = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(0))
    graph = calibrate(module, x[:1], x, AFFINE)
    assert any("aten.add" in name for name in float_islands(graph)) is apart
    assert any("residual sums" in note for note in graph.meta[NOTES]) is apart
    with torch.no_grad():
        expected, found = module(x), graph(x)
    noise = (expected - found).square().sum() / expected.square().sum()
    assert float(noise) < 0.01
