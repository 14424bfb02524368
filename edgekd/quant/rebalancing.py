"""Moves weights between the layers of a float graph before it is quantized, and checks that it
still computes what the network does."""

from torch import fx, nn

from edgekd.network.evaluation import predict
from edgekd.quant.bias_absorption import absorb_biases
from edgekd.quant.equalization import equalize
from edgekd.quant.export_check import check_exported
from edgekd.quant.output_error import relative_error
from edgekd.quant.post_training import PostTraining
from edgekd.quant.smoothing import smooth
from edgekd.values.tree import Tree


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
        change = relative_error(predict(module, samples), graph, samples)
        notes.append(f"in float the outputs change by {change:.2g}")
    return apart, tuple(notes)
