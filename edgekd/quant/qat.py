"""Quantization-aware training: fake quantization in the graph, with straight-through gradients.
Jacob et al. 2018, section 3. Batch norms are folded beforehand (section 3.2), so there are no batch
statistics to freeze. Ranges start from real samples and are frozen at the end.
"""

from collections.abc import Collection

import torch
from torch import fx, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

from edgekd.quant.common_grids import share_observed
from edgekd.quant.export import quiet, switchable
from edgekd.quant.observing import fit_weight_ranges, set_ranges
from edgekd.quant.post_training import PostTraining
from edgekd.quant.preparing import NOTES, Prepared, prepare_graph
from edgekd.quant.quantizer import ActivationFakeQuantize, TargetQuantizer, count_uses
from edgekd.quant.ranges import RangeRule
from edgekd.quant.rewrite import finish
from edgekd.quant.wide_layers import mark_wide
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree

BEFORE_TRAINING = PostTraining(rule=RangeRule("moving-average"))
"""Where training starts: its own ranges go on as a moving average of the batches' extremes."""


def prepare_qat(
    module: nn.Module,
    example: Tree,
    samples: Tree,
    scheme: Scheme,
    where: str = "quantize",
    floats: Collection[str] = (),
    strict: bool = False,
    choices: PostTraining = BEFORE_TRAINING,
) -> fx.GraphModule:
    """A graph that can be trained like any module, with ranges set from `samples` (N, ...).
    `floats` are the layers that stay in float; if `strict`, nothing does. Layers keep their names
    in the nodes' metadata, so losses can read features. Ranges follow the data in `train()` mode
    and are fixed in `eval()` mode.
    """
    start = prepare_graph(module, example, samples, scheme, where, strict, choices)
    return observed(start, samples, scheme, floats, choices)


def observed(
    start: Prepared,
    samples: Tree,
    scheme: Scheme,
    floats: Collection[str] = (),
    choices: PostTraining = BEFORE_TRAINING,
) -> fx.GraphModule:
    """A prepared graph, which is changed, with fake quantization in the ranges that follow from
    `samples` as `choices` say."""
    graph = start.graph
    mark_wide(graph, choices.wide, (*floats, *start.apart))
    for parameter in graph.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with quiet():
        prepared = switchable(
            prepare_qat_pt2e(graph, TargetQuantizer(scheme, (*floats, *start.apart)))
        )
    count_uses(prepared)
    prepared.meta[NOTES] = start.notes
    share_observed(prepared, scheme)
    set_ranges(prepared, samples, choices.rule, start.statistics)
    if choices.weight_ranges == "mse":
        fit_weight_ranges(prepared)
    return prepared.eval()


def activations(graph: nn.Module) -> list[ActivationFakeQuantize]:
    """Every fake quantizer of an activation, without duplicates."""
    return [part for part in graph.modules() if isinstance(part, ActivationFakeQuantize)]


def freeze_ranges(graph: nn.Module) -> None:
    """Freeze the activations' ranges; those of weights still follow the weights."""
    for part in activations(graph):
        part.disable_observer()


def finish_qat(graph: fx.GraphModule, example: Tree) -> fx.GraphModule:
    """The trained graph with integers in place of fake quantization."""
    graph.eval()
    with torch.no_grad(), quiet():
        graph(example)  # the weights' ranges, as the last step of the optimizer left them
        notes = graph.meta.get(NOTES, ())
        converted = convert_pt2e(graph, fold_quantize=False)
    finished = finish(converted)
    finished.meta[NOTES] = notes
    return finished
