"""Moves weights between the layers of a float graph before it is quantized, and checks that it
still computes what the network does."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.network.evaluation import predict
from edgekd.quant.bias_absorption import absorb_biases
from edgekd.quant.equalization import equalize
from edgekd.quant.export_check import check_exported
from edgekd.quant.post_training import PostTraining
from edgekd.quant.smoothing import smooth
from edgekd.values.tree import Tree, leaves


def rebalance(
    graph: fx.GraphModule,
    module: nn.Module,
    samples: Tree,
    choices: PostTraining,
    strict: bool,
    where: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Change `graph` as `choices` say. Returns the names of operators that were added and stay in
    float, and notes. Raises `ToolError` if the graph computes something else on the samples, but
    for what the user has chosen to change."""
    apart: tuple[str, ...] = ()
    notes: list[str] = []
    if choices.equalize:
        notes += equalize(graph, samples, choices.equalize)
    if choices.smooth_quant:
        apart, note = smooth(graph, samples, strict)
        notes += note
    if notes and choices.equalize != "replace-relu6":
        check_exported(graph, module, samples, where)
    if choices.absorb_biases:
        notes += absorb_biases(graph, samples)
    if choices.absorb_biases or choices.equalize == "replace-relu6":
        notes.append(f"in float the outputs change by {_change(graph, module, samples):.2g}")
    return apart, tuple(notes)


def _change(graph: fx.GraphModule, module: nn.Module, samples: Tree) -> float:
    """How far the outputs are from the module's, relative to their size (root mean square)."""
    expected, found = (leaves(predict(each, samples)) for each in (module, graph))
    pairs: list[tuple[Tensor, Tensor]] = list(zip(expected, found, strict=True))
    error: Any = sum((a.double() - b.double()).square().sum() for a, b in pairs)
    size: Any = sum(a.double().square().sum() for a, _ in pairs)
    return float(torch.sqrt(error / size.clamp_min(1e-30)))
