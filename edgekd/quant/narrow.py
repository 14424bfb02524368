"""Weights in few bits: int8, int4, ternary and binary, with one scale per group. A group is a run
of adjacent weights of one output channel: (o, groups, size).

- int8, int4: s = max|w| / Q, codes round(w / s) in [-Q, Q], Q = 127 and 7. Without
  training the scale is the fraction of that maximum with the least squared error.
- ternary: with D = 0.7 mean|w|, codes sign(w) where |w| > D and 0 elsewhere, s the mean of those
  |w|. Li & Liu 2016 (arXiv:1605.04711), eq. 6.
- binary: codes sign(w) with sign(0) = 1, s = mean|w|. Rastegari et al. 2016 (arXiv:1603.05279),
  eq. 6.

All use straight-through gradients; ternary and binary pass none where |w| > 1 (Courbariaux et al.
2016, arXiv:1602.02830, eq. 4).
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekd.quant.learned_step import Step, first_step, learned_step

Narrow = Literal["int8", "int4", "ternary", "binary"]

LIMIT: dict[Narrow, int] = {"int8": 127, "int4": 7, "ternary": 1, "binary": 1}
"""The largest code; the smallest is its negative."""

BITS = {127: 8, 7: 4, 1: 2}
"""Bits per code in a file, by the largest code: ONNX has no type below two bits."""

WIDTH = ("binary", "ternary", "int4", "int8", "float")
"""The types from the fewest bits to the most."""

_SMALLEST = 2.0**-126
_SHARES = torch.linspace(1.0, 0.5, 26)


def group_size(weights: int, wanted: int) -> int:
    """The largest divisor of a channel's number of weights up to `wanted`; 0 is the whole
    channel."""
    if not wanted or wanted >= weights:
        return weights
    return next(size for size in range(wanted, 0, -1) if weights % size == 0)


def grouped(weight: Tensor, size: int) -> Tensor:
    """A weight (o, ...) reshaped to (o, groups, size)."""
    return weight.reshape(weight.shape[0], -1, size)


def rounded(groups: Tensor, limit: int, search: bool = False) -> tuple[Tensor, Tensor]:
    """Codes (o, groups, size) and scales (o, groups, 1) of symmetric integers."""
    scale = (groups.abs().amax(2, keepdim=True) / limit).clamp_min(_SMALLEST)
    if search:
        scale = _least_error(groups, scale, limit)
    return (groups / scale).round().clamp(-limit, limit), scale


def _least_error(groups: Tensor, scale: Tensor, limit: int) -> Tensor:
    best, least = scale, torch.full_like(scale, float("inf"))
    for share in _SHARES.tolist():
        tried = scale * share
        rounded = (groups / tried).round().clamp(-limit, limit) * tried
        error = (rounded - groups).square().sum(2, keepdim=True)
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    return best


def ternary(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of ternary weights."""
    size = groups.abs()
    large = size > 0.7 * size.mean(2, keepdim=True)
    scale = (size * large).sum(2, keepdim=True) / large.sum(2, keepdim=True).clamp_min(1)
    return groups.sign() * large, scale


def binary(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of binary weights."""
    codes = torch.where(groups < 0, -1.0, 1.0)
    return codes, groups.abs().mean(2, keepdim=True)


class _Through(torch.autograd.Function):
    """Forward: the second value. Backward: the gradient goes to the first, where `passes`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, narrow: Tensor, passes: Tensor) -> Tensor:
        ctx.save_for_backward(passes)
        return narrow

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (passes,) = ctx.saved_tensors
        return gradients[0] * passes, None, None


class NarrowWeight(nn.Module):
    """A weight (o, ...), quantized and dequantized, with straight-through gradients. `learned`
    trains the integer types' scales as LSQ steps; `search` picks the scale with the least squared
    error instead of the largest weight. `enabled` can switch it off for measurements.
    """

    def __init__(
        self,
        weight: Tensor,
        dtype: Narrow,
        group: int,
        *,
        learned: bool = False,
        search: bool = False,
    ) -> None:
        super().__init__()
        self.dtype: Narrow = dtype
        self.limit = LIMIT[dtype]
        self.size = group_size(weight[0].numel(), group)
        self.search, self.enabled = search, True
        start = first_step(grouped(weight.detach(), self.size), self.limit, (2,))
        self.step = Step(start.clamp_min(1e-8)) if learned else None

    def forward(self, weight: Tensor) -> Tensor:
        if not self.enabled:
            return weight
        groups = grouped(weight, self.size)
        if self.step is not None:
            return learned_step(groups, self.step(), -self.limit, self.limit).view_as(weight)
        with torch.no_grad():
            codes, scale = self.coded(groups)
            straight = self.dtype in ("int8", "int4")
            passes = torch.ones_like(groups) if straight else (groups.abs() <= 1).float()
        narrow: Tensor = _Through.apply(groups, codes * scale, passes)  # type: ignore[no-untyped-call]
        return narrow.view_as(weight)

    def coded(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and scales of grouped weights."""
        if self.step is not None:
            step = self.step().detach()
            return (groups / step).round().clamp(-self.limit, self.limit), step
        if self.dtype == "ternary":
            return ternary(groups)
        if self.dtype == "binary":
            return binary(groups)
        return rounded(groups, self.limit, self.search)
