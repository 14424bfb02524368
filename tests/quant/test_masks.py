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


ADDED = {
    "a choice of zero or the lowest number": lambda seen: torch.where(seen, 0.0, LOWEST),
    "zeros filled with -10000": lambda seen: torch.zeros(seen.shape).masked_fill(~seen, -1e4),
    "what is hidden, scaled": lambda seen: (1.0 - seen.float()) * LOWEST,
    "the lowest number times what is hidden": lambda seen: -1e9 * (~seen).float(),
}


class WrittenOut(nn.Module):
    """Two heads of attention that adds a mask of its second input to the scores, as BERT does."""

    def __init__(self, mask):
        super().__init__()
        self.query, self.value, self.mask = nn.Linear(8, 8), nn.Linear(8, 8), mask

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x, seen = inputs["x"], inputs["mask"][:, None, None, :] > 0
        query, value = (
            part.unflatten(2, (2, 4)).transpose(1, 2) for part in (self.query(x), self.value(x))
        )
        scores = query @ query.mT / 2 + self.mask(seen)
        return (torch.softmax(scores, -1) @ value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("name", ADDED)
def test_attention_that_adds_a_mask_is_close_to_the_module(name):
    torch.manual_seed(0)
    module = WrittenOut(ADDED[name]).eval()
    lengths = torch.arange(1, 17).remainder(LENGTH)[:, None] + 1
    mask = (torch.arange(LENGTH) < lengths).long()
    samples = {"x": torch.randn(16, LENGTH, 8), "mask": mask}
    example = {key: value[:1] for key, value in samples.items()}
    graph = calibrate(module, example, samples, Scheme(activations="int8-affine"))
    with torch.no_grad():
        expected = module(samples)
        noise = (graph(samples) - expected).square().mean() / expected.square().mean()
    assert noise < 1e-3
    assert [each for each in float_islands(graph) if "softmax" in each or "matmul" in each] == []
