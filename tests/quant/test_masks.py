"""Attention whose scores get a bias and are masked computes in integers what the module does."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import float_islands
from edgekd.values.target import Scheme

LENGTH = 6
PAST = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
LOWEST = torch.finfo(torch.float32).min

MASKS = {
    "a bias where the past is, -inf elsewhere": lambda bias, n: torch.where(PAST, bias, -torch.inf),
    "a bias for each sample": lambda bias, n: torch.where(
        PAST.expand(n, 1, -1, -1), bias, LOWEST
    ).contiguous(),
    "a bias filled with the lowest number": lambda bias, n: bias.masked_fill(~PAST, LOWEST),
    "a bias and a mask that are added": lambda bias, n: bias + (~PAST).float() * LOWEST,
    "no bias": lambda bias, n: torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~PAST, -torch.inf),
    "a bias alone": lambda bias, n: bias,
}


class Biased(nn.Module):
    """Two heads of attention with a position bias, as in T5."""

    def __init__(self, mask):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, 2, LENGTH, LENGTH))
        self.query, self.value, self.mask = nn.Linear(8, 8), nn.Linear(8, 8), mask

    def forward(self, x: Tensor) -> Tensor:
        heads = [
            part.unflatten(2, (2, 4)).transpose(1, 2) for part in (self.query(x), self.value(x))
        ]
        mask = self.mask(self.bias, x.shape[0])
        found = F.scaled_dot_product_attention(heads[0], heads[0], heads[1], attn_mask=mask)
        return found.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("name", MASKS)
def test_masked_attention_with_a_bias_is_close_to_the_module(name):
    torch.manual_seed(0)
    module, x = Biased(MASKS[name]).eval(), torch.randn(16, LENGTH, 8)
    graph = calibrate(module, x[:1], x, Scheme(activations="int8-affine"))
    assert float_islands(graph) == []
    with torch.no_grad():
        noise = (graph(x) - module(x)).square().mean() / module(x).square().mean()
    assert noise < 1e-3
