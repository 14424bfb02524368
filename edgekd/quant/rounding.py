"""Chooses the integers of a quantized graph's weights by the layers' outputs on samples, one layer
after the other, each with the inputs that the layers before it really give."""

from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.adaptive_rounding import adaround
from edgekd.quant.channel_scaling import weight_of
from edgekd.quant.coded_weights import coded_weight, put_codes
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.gptq import gptq
from edgekd.quant.layer_moments import Moments, moments_of
from edgekd.quant.stepping import Stepper
from edgekd.values.progress import Progress, silent
from edgekd.values.tree import Tree, leaves, rows

Rounding = Literal["nearest", "adaround", "gptq"]
"""nearest: each weight by itself. adaround: up or down, by what the layer's outputs lose (Nagel
2020). gptq: in turn, the weights that follow making up for the error (Frantar 2022)."""

STEPS = 500
"""Steps of AdaRound for each layer, where the recipe says nothing."""

_MOST_VALUES = 2**23
"""The most input values run at once; intermediate activations are many times that."""


def reround(
    floating: fx.GraphModule,
    quantized: fx.GraphModule,
    samples: Tree,
    rounding: Rounding,
    steps: int = STEPS,
    progress: Progress = silent,
) -> str:
    """Change the weights' integers in `quantized`, whose layers have the names of those of
    `floating`; a note says how far the errors fell. A layer whose error does not fall keeps the
    nearest integers."""
    values = sum(leaf[0].numel() for leaf in leaves(samples))
    samples = rows(samples, slice(0, max(1, _MOST_VALUES // max(1, values))))
    shares: list[float] = []
    layers = [node for node in quantized.graph.nodes if node.target in ops.WEIGHTED]
    with torch.no_grad():
        expected, found = Stepper(floating, samples), Stepper(quantized, samples)
        for number, layer in enumerate(layers):
            coded = coded_weight(quantized, layer)
            if coded is None:
                continue
            progress(rounding, number, len(layers))
            reference, _ = expected.before(layer.name)
            moments = _moments(floating, reference, expected.result(), found.before(layer.name)[1])
            weight = weight_of(floating, reference).flatten(1).float()
            nearest = coded.nearest(weight)
            if rounding == "gptq":
                codes = gptq(weight, coded, moments)
            else:
                codes = adaround(weight, coded, moments, steps)
            errors = [float(moments.error(each * coded.step)) for each in (nearest, codes)]
            better = errors[1] < errors[0]
            put_codes(quantized, coded, codes if better else nearest)
            shares.append(errors[1] / errors[0] if better else 1.0)
    if not shares:
        return f"{rounding}: no layer has a weight of its own"
    fewer = sum(share < 1.0 for share in shares)
    mean = sum(shares) / len(shares)
    return f"{rounding}: {fewer} of {len(shares)} layers lose less, {1 - mean:.0%} on average"


def _moments(graph: fx.GraphModule, layer: fx.Node, y: Tensor, x: Tensor) -> Moments:
    """The moments of the inputs `x` of a rounded layer, for the float layer's outputs `y`."""
    bias: Any = layer.args[2] if len(layer.args) > 2 else None
    if is_constant(bias):
        value = constant_of(graph, bias).detach()
        linear = layer.target is torch.ops.aten.linear.default
        y = y - (value if linear else value.view(-1, *[1] * (y.dim() - 2)))
    return moments_of(layer, weight_of(graph, layer).shape, x, y)
