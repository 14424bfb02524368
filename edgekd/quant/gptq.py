"""GPTQ: weights are rounded one input at a time, and those that follow make up for the error.

Frantar et al. 2022 (arXiv:2210.17323), algorithm 1: with the Cholesky factor U of H^-1, the error
of column j divided by U_jj goes into the columns after it along U_j. Inputs with the largest H_jj
come first; H gets 1 % of its mean diagonal for stability.
"""

import torch
from torch import Tensor

from edgekd.quant.coded_weights import CodedWeight
from edgekd.quant.layer_moments import Moments

_DAMPING = 0.01


def gptq(weight: Tensor, coded: CodedWeight, moments: Moments) -> Tensor:
    """The codes (o, k) of a weight (o, k)."""
    groups = len(moments.inputs)
    parts = [value.chunk(groups) for value in (weight, coded.step)]
    rows = [
        _rounded(part, step, (coded.low, coded.high), inputs)
        for part, step, inputs in zip(*parts, moments.inputs, strict=True)
    ]
    return torch.cat(rows)


def _rounded(weight: Tensor, step: Tensor, ends: tuple[int, int], inputs: Tensor) -> Tensor:
    order = inputs.diagonal().argsort(descending=True)
    left, steps = weight[:, order].clone(), step[:, order]
    factor = _factor(inputs[order][:, order])
    codes = torch.empty_like(left)
    for place in range(left.shape[1]):
        column, scale = left[:, place], steps[:, place]
        codes[:, place] = (column / scale).round().clamp(*ends)
        error = (column - codes[:, place] * scale) / factor[place, place]
        left[:, place:] -= error[:, None] * factor[place, place:]
    result = torch.empty_like(codes)
    result[:, order] = codes
    return result


def _factor(inputs: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of H; inputs that are always zero count as alone."""
    inputs = inputs.double()
    diagonal = inputs.diagonal()
    damping = _DAMPING * diagonal.mean().clamp_min(1e-30)
    damped = inputs + torch.diag(damping.expand_as(diagonal))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return factor
