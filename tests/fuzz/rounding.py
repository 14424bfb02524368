"""What rounding alone costs a network: every value on a grid of its own, as fine as the scheme's.

An independent reference for quantized graphs. It reads the float graph and nothing that edgekd's
quantizer decided, so its signal to noise says what depth and bits allow.
"""

from typing import Any

import torch
from torch import Tensor, fx


def snr(expected: Tensor, found: Tensor) -> float:
    """Signal to noise in decibels."""
    noise = (expected - found).double().square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(expected.double().square().sum() / noise))


AVERAGES = {torch.ops.aten.avg_pool1d.default, torch.ops.aten.avg_pool2d.default}
"""Operators that round on the grid of their input: kernels require it. Averaging zeros of the
padding makes values smaller, and the grid no finer."""


def rounded(graph: fx.GraphModule, samples: Tensor, weight_bits: int) -> Tensor:
    """The graph's output for (N, ...), each value rounded to 256 levels between its extremes and
    each weight to `weight_bits` for each output channel."""

    steps: dict[fx.Node, float] = {}

    class Rounding(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            if n.op == "get_attr":
                return _symmetric(value, weight_bits) if value.dim() > 1 else value
            steps[n] = _step(value)
            if n.target in AVERAGES:
                steps[n] = steps[n.args[0]]
            return (value / steps[n]).round() * steps[n]

    with torch.no_grad():
        output: Tensor = Rounding(graph).run(samples)
    return output


def _step(value: Tensor) -> float:
    """The step of 256 levels between the extremes of a value and zero."""
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    return (high - low) / 255 or 1.0


def _symmetric(weight: Tensor, bits: int) -> Tensor:
    most = weight.flatten(1).abs().amax(1).clamp_min(1e-9)
    step = (most / (2 ** (bits - 1) - 1)).view(-1, *[1] * (weight.dim() - 1))
    return (weight / step).round() * step
