"""AdaRound: each weight is rounded up or down, whichever makes the layer's outputs more exact.

Nagel et al. 2020 (arXiv:2004.10568), equations 21 to 24: w' = s clip(floor(w / s) + h(v)), with
h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1) and the regularizer 1 - |2 h(v) - 1|^b, whose b falls from
20 to 2 so that every h ends at 0 or 1. The output's error comes from the moments of the layer's
inputs, so a step costs the same for any number of samples and sees all of them.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from edgekd.quant.coded_weights import CodedWeight
from edgekd.quant.layer_moments import Moments

_HIGH, _LOW = 1.1, -0.1
_WARM_UP = 0.2


class SoftRounding:
    """A weight (o, k) between rounding down and up: it holds the variable v that is trained."""

    rate: ClassVar[float] = 0.02
    """Adam's learning rate."""

    def __init__(self, weight: Tensor, coded: CodedWeight) -> None:
        self.weight, self.coded = weight, coded
        self.base = (weight / coded.step).floor()
        rest = (weight / coded.step - self.base).clamp(0.01, 0.99)
        share = (rest - _LOW) / (_HIGH - _LOW)
        self.variable = torch.nn.Parameter((share / (1.0 - share)).log())

    def share(self) -> Tensor:
        """h(v): how far each weight is from rounding down, 0, to rounding up, 1."""
        return (self.variable.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)

    def value(self, share: Tensor) -> Tensor:
        """The weight (o, k)."""
        return (self.base + share).clamp(self.coded.low, self.coded.high) * self.coded.step

    def penalty(self, share: Tensor, step: int, steps: int) -> Tensor:
        """The mean regularizer; 0 in the first fifth of the steps. The exponent b falls along half
        a cosine."""
        done = (step / steps - _WARM_UP) / (1.0 - _WARM_UP)
        if done < 0.0:
            return share.new_zeros(())
        sharpness = 2.0 + 9.0 * (1.0 + math.cos(math.pi * done))
        return (1.0 - (2.0 * share - 1.0).abs().pow(sharpness)).mean()

    def codes(self) -> Tensor:
        """The integers (o, k) that the training has come to."""
        up = (self.share().detach() >= 0.5).float()
        return (self.base + up).clamp(self.coded.low, self.coded.high)


def adaround(weight: Tensor, coded: CodedWeight, moments: Moments, steps: int) -> Tensor:
    """The codes (o, k) of a weight (o, k) after `steps` steps of Adam."""
    soft = SoftRounding(weight, coded)
    optimizer = torch.optim.Adam([soft.variable], lr=SoftRounding.rate)
    scale = moments.error(coded.nearest(weight) * coded.step).clamp_min(1e-30)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.zero_grad()
            share = soft.share()
            loss = moments.error(soft.value(share)) / scale + soft.penalty(share, step, steps)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return soft.codes()
