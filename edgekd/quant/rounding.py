"""Chooses the integers of a quantized graph's weights by the layers' outputs on samples, one layer
after the other, each with the inputs that the layers before it really give."""

from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.adaptive_rounding import adaround
from edgekd.quant.batches import at_once
from edgekd.quant.block_rounding import reround_block
from edgekd.quant.channel_scaling import weight_of
from edgekd.quant.coded_weights import CodedWeight, coded_weight, put_codes
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.gptq import gptq
from edgekd.quant.graph_blocks import blocks_of
from edgekd.quant.layer_moments import Moments, moments_of
from edgekd.quant.stepping import Stepper
from edgekd.values.progress import Progress, silent
from edgekd.values.tree import Tree

Rounding = Literal["nearest", "adaround", "blocks", "gptq"]
"""nearest: each weight by itself. adaround: up or down, by what the layer's outputs lose (Nagel
2020); blocks: by what those of its block lose (Li 2021). gptq: in turn, the weights that follow
making up for the error (Frantar 2022)."""

STEPS = 500
"""Steps for each layer or block, where the recipe says nothing."""

MOST_WEIGHTS = 4096
"""Layers with more weights for each output keep the nearest integers in AdaRound, a step of which
takes as many products as the square of that number."""


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
    samples = at_once(samples)
    layers = [node for node in quantized.graph.nodes if node.target in ops.WEIGHTED]
    coded = {node.name: coded_weight(quantized, node) for node in layers}
    own = {name: each for name, each in coded.items() if each is not None}
    blocks = blocks_of(floating, own) if rounding == "blocks" else []
    first = {block.layers[0]: block for block in blocks}
    inside = {name for block in blocks for name in block.layers}
    shares: list[float] = []
    with torch.no_grad():
        graphs = floating, quantized
        both = Stepper(floating, samples), Stepper(quantized, samples)
        for number, (name, each) in enumerate(own.items()):
            progress(rounding, number, len(own))
            if name in first:
                block = first[name]
                ends = both[1].value(block.entry), both[0].value(block.end)
                mine = {layer: own[layer] for layer in block.layers}
                shares.append(reround_block(floating, quantized, block, mine, ends, steps))
            elif name not in inside:
                method: Rounding = "gptq" if rounding == "gptq" else "adaround"
                shares.append(_reround_layer(graphs, both, name, each, method, steps))
    if not shares:
        return f"{rounding}: no layer has a weight of its own"
    fewer, unit = sum(share < 1.0 for share in shares), "blocks" if blocks else "layers"
    mean = 1 - sum(shares) / len(shares)
    return f"{rounding}: {fewer} of {len(shares)} {unit} lose less, {mean:.0%} on average"


def _reround_layer(
    graphs: tuple[fx.GraphModule, fx.GraphModule],
    both: tuple[Stepper, Stepper],
    name: str,
    coded: CodedWeight,
    rounding: Rounding,
    steps: int,
) -> float:
    """Change one layer's integers; the error over that of the nearest ones."""
    floating, quantized = graphs
    reference, _ = both[0].before(name)
    moments = _moments(floating, reference, both[0].result(), both[1].before(name)[1])
    weight = weight_of(floating, reference).flatten(1).float()
    nearest = coded.nearest(weight)
    if rounding == "adaround" and weight.shape[1] > MOST_WEIGHTS:
        return 1.0
    if rounding == "gptq":
        codes = gptq(weight, coded, moments)
    else:
        codes = adaround(weight, coded, moments, steps)
    before, after = (float(moments.error(each * coded.step)) for each in (nearest, codes))
    put_codes(quantized, coded, codes if after < before else nearest)
    return after / before if after < before else 1.0


def _moments(graph: fx.GraphModule, layer: fx.Node, y: Tensor, x: Tensor) -> Moments:
    """The moments of the inputs `x` of a rounded layer, for the float layer's outputs `y`."""
    bias: Any = layer.args[2] if len(layer.args) > 2 else None
    if is_constant(bias):
        value = constant_of(graph, bias).detach()
        linear = layer.target is torch.ops.aten.linear.default
        y = y - (value if linear else value.view(-1, *[1] * (y.dim() - 2)))
    return moments_of(layer, weight_of(graph, layer).shape, x, y)
