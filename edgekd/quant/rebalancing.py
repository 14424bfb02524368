"""Moves weights between the layers of a float graph before it is quantized, and checks that it
still computes what the network does."""

from torch import fx, nn

from edgekd.quant.export_check import check_exported
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
    float, and notes. Raises `ToolError` if the graph computes something else on the samples."""
    if not choices.smooth_quant:
        return (), ()
    apart, notes = smooth(graph, samples, strict)
    check_exported(graph, module, samples, where)
    return apart, tuple(notes)
