"""Post-training quantization: ranges from real samples, weights rounded, biases corrected."""

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from edgekd.quant.bias_correction import correct_biases
from edgekd.quant.constants import own_constants
from edgekd.quant.export import quiet
from edgekd.quant.layer_noise import check_layers
from edgekd.quant.own_noise import check_noises, own_noises
from edgekd.quant.post_training import DEFAULTS, PostTraining
from edgekd.quant.preparing import NOTES, Prepared, prepare_graph
from edgekd.quant.rewrite import finish, fold_weights
from edgekd.quant.rounding import reround
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, rows


def calibrate(
    module: nn.Module,
    example: Tree,
    samples: Tree,
    scheme: Scheme,
    choices: PostTraining = DEFAULTS,
    *,
    floats: Collection[str] = (),
    strict: bool = False,
    where: str = "quantize",
    kept: dict[Any, Prepared] | None = None,
) -> fx.GraphModule:
    """An int8 graph of a float module, calibrated on `samples` (N, ...) as `choices` say; the
    layers in `floats` stay in float, and if `strict` nothing does. The float module is not changed.
    `kept` holds what several calibrations of one module on the same samples have in common. Raises
    `ToolError` with the names of layers that add far more noise than their bits explain; coarse
    ones become notes.
    """
    key = (choices.equalize, choices.absorb_biases, choices.smooth_quant, choices.wide)
    start = None if kept is None else kept.get(key)
    if start is None:
        start = prepare_graph(module, example, samples, scheme, where, strict, choices)
        if kept is not None:
            start = kept[key] = replace(start, statistics={})
    return quantized(start, samples, scheme, choices, floats, where)


def quantized(
    start: Prepared,
    samples: Tree,
    scheme: Scheme,
    choices: PostTraining,
    floats: Collection[str] = (),
    where: str = "quantize",
) -> fx.GraphModule:
    """The int8 graph of a prepared one, which is not changed."""
    graph = start.graph
    calibrated = _converted(start, samples, scheme, choices, floats)
    fold_weights(calibrated)
    rounded: tuple[str, ...] = ()
    if choices.rounding != "nearest":
        steps = choices.rounding_steps
        rounded = (reround(graph, calibrated, samples, choices.rounding, steps),)
    shifts = correct_biases(graph, calibrated, samples) if choices.bias_correction else {}
    finished = finish(calibrated)
    if not rounded:  # which trades exact weights for exact outputs
        check_layers(graph, finished, samples, scheme, where)
    noises = own_noises(graph, finished, samples, scheme, clips=choices.rule.clips, shifts=shifts)
    coarse = check_noises(noises, scheme, where)
    finished.meta[NOTES] = (*rounded, *start.notes, *coarse)
    return finished


def _converted(
    start: Prepared,
    samples: Tree,
    scheme: Scheme,
    choices: PostTraining,
    floats: Collection[str],
) -> fx.GraphModule:
    """The graph with quantize and dequantize operators around float weights."""
    # torchao takes seconds to import: not before it is used.
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    from edgekd.quant.qat import observed

    own = copy.deepcopy(start.graph)
    own_constants(own)
    graph = observed(replace(start, graph=own), samples, scheme, floats, choices)
    with torch.no_grad(), quiet():
        graph(rows(samples, slice(0, 1)))
        converted: fx.GraphModule = convert_pt2e(graph, fold_quantize=False)
    return converted
