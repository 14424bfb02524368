"""AdaRound: each weight is rounded up or down, whichever makes the layer's outputs more exact.

Nagel et al. 2020 (arXiv:2004.10568), equations 21 to 24: w' = s clip(floor(w / s) + h(v)), with
h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1) and the regularizer 1 - |2 h(v) - 1|^b, whose b falls from
20 to 2 so that every h ends at 0 or 1. The output's error comes from the moments of the layer's
inputs, so a step costs the same for any number of samples and sees all of them.
"""

import torch
from torch import Tensor

from edgekd.quant.coded_weights import CodedWeight
from edgekd.quant.layer_moments import Moments

_HIGH, _LOW = 1.1, -0.1
_WARM_UP = 0.2
_RATE = 0.02


def adaround(weight: Tensor, coded: CodedWeight, moments: Moments, steps: int) -> Tensor:
    """The codes (o, k) of a weight (o, k) after `steps` steps of Adam."""
    base = (weight / coded.step).floor()
    rest = (weight / coded.step - base).clamp(0.01, 0.99)
    share = (rest - _LOW) / (_HIGH - _LOW)
    variable = torch.nn.Parameter((share / (1.0 - share)).log())
    optimizer = torch.optim.Adam([variable], lr=_RATE)

    def error(codes: Tensor) -> Tensor:
        return moments.error(codes.clamp(coded.low, coded.high) * coded.step)

    scale = error(coded.nearest(weight)).clamp_min(1e-30)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.zero_grad()
            soft = _soft(variable)
            loss = error(base + soft) / scale
            if step >= _WARM_UP * steps:
                loss = loss + (1.0 - (2.0 * soft - 1.0).abs().pow(_sharpness(step, steps))).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    up = (_soft(variable.detach()) >= 0.5).float()
    return (base + up).clamp(coded.low, coded.high)


def _soft(variable: Tensor) -> Tensor:
    return (variable.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)


def _sharpness(step: int, steps: int) -> float:
    """The exponent b, from 20 to 2 along half a cosine (as the authors' code has it)."""
    done = (step - _WARM_UP * steps) / max(1.0, (1.0 - _WARM_UP) * steps)
    return 2.0 + 9.0 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))
