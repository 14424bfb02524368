"""Activations clipped to learned bounds, with straight-through gradients inside them.

PACT, Choi et al. 2018 (arXiv:1805.06085): y = clip(x, low, high), rounded to the grid between.

    dy/dx = 1 where low < x < high, 0 outside                  (straight through the rounding)
    dy/dhigh = 1 where x >= high, dy/dlow = 1 where x <= low   (eq. 3)

The paper has low = 0, after a ReLU; here both bounds are learned where values have both signs. The
bounds are scalar parameters, which are exempt from weight decay.
"""

from typing import Any

import torch
from torch import Tensor


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(value, low, high)
        return torch.minimum(torch.maximum(value, low), high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,), (value, low, high) = gradients, ctx.saved_tensors
        below, above = value <= low, value >= high
        inside = ~(below | above)
        for_low = (gradient * below).sum_to_size(low.shape)
        return gradient * inside, for_low, (gradient * above).sum_to_size(high.shape)


def clipped(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`value` clipped to the bounds, which get gradients from the values beyond them."""
    result: Tensor = _Clipped.apply(value, low, high)  # type: ignore[no-untyped-call]
    return result


def rounded_between(value: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Quantize to `steps` steps from low to high with an exact zero; straight-through gradient."""
    scale = (high - low) / steps
    zero = (low / scale).round()
    grid = ((value / scale).round().clamp(zero, zero + steps) * scale).detach()
    return value + (grid - value).detach()
