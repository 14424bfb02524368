"""Learned step size quantization: a grid's step is trained together with the weights.

Esser et al. 2020 (arXiv:1902.08153). With x = v / s and the grid's ends low <= 0 <= high:

    v^ = s * clip(round(x), low, high)                                       (eq. 1 and 2)
    dv^/ds = round(x) - x inside, low where x <= low, high where x >= high   (eq. 3)
    dv^/dv = 1 inside, 0 outside                                             (eq. 5)

and the step's gradient is scaled by 1 / sqrt(N high), N the values that share it (section 2.2).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, step: Tensor, low: int, high: int, shared: int) -> Tensor:
        ctx.save_for_backward(value, step)
        ctx.ends, ctx.shared = (low, high), shared
        return (value / step).round().clamp(low, high) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (gradient,), (value, step), (low, high) = gradients, ctx.saved_tensors, ctx.ends
        x = value / step
        inside = (x > low) & (x < high)
        slope = torch.where(inside, x.round() - x, x.clamp(low, high))
        scale = (ctx.shared * (high or -low)) ** -0.5
        for_step = (gradient * slope).sum_to_size(step.shape) * scale
        return gradient * inside, for_step, None, None, None


def learned_step(
    value: Tensor, step: Tensor, low: int, high: int, shared: int | None = None
) -> Tensor:
    """`value` quantized with `step` (which broadcasts to it), both with the paper's gradients.
    `shared` is N, by default the number of values per step; for activations, the values of one
    sample.
    """
    count = value.numel() // step.numel() if shared is None else shared
    rounded: Tensor = _LearnedStep.apply(value, step, low, high, count)  # type: ignore[no-untyped-call]
    return rounded


def first_step(value: Tensor, high: int, dims: tuple[int, ...]) -> Tensor:
    """The paper's initial step 2 mean|v| / sqrt(high), over `dims` (section 2.1)."""
    mean: Tensor = value.abs().mean(dims, keepdim=True)
    return 2 * mean / math.sqrt(high)


class Step(nn.Module):
    """A step that is trained as a multiple of its initial value. Steps are far smaller than one,
    and an optimizer such as Adam changes every parameter by about its learning rate: with a
    multiple, the step changes by that fraction of itself.
    """

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        # One dimension: what has more is weight-decayed, and a step must not shrink by itself.
        self.ratio = nn.Parameter(torch.ones(start.numel()))

    def forward(self) -> Tensor:
        ratio: Tensor = self.ratio.clamp_min(1e-3).view_as(self.start)
        return self.start * ratio
