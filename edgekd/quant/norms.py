"""A batch norm at inference as what it is: a product and a sum for each channel."""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.constants import constant_of, is_constant


def norm_constants(graph: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor] | None:
    """The factor and the summand (channels,) of a `batch_norm` node, None if they vary."""
    arguments: tuple[Any, ...] = norm.args
    if not all(each is None or is_constant(each) for each in arguments[1:5]):
        return None
    gamma, beta, mean, variance = (
        None if each is None else constant_of(graph, each).detach() for each in arguments[1:5]
    )
    if mean is None or variance is None:
        return None
    scale = torch.rsqrt(variance + arguments[7])
    scale = scale if gamma is None else scale * gamma
    return scale, (0 if beta is None else beta) - mean * scale
