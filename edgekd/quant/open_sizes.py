"""Sizes of a network's inputs, besides the number of samples, that exports leave open."""

from typing import Any

import torch
from torch import fx, nn

from edgekd.network.calling import open_sizes
from edgekd.values.tree import Tree, leaf_names

Dimensions = list[dict[int, Any]]
"""Of each input in order: its open dimensions, as the exporter takes them."""


def open_dimensions(module: nn.Module, example: Tree) -> Dimensions:
    """What the module's recipe leaves open; of a graph, what its own inputs leave open."""
    if isinstance(module, fx.GraphModule):
        return _of_graph(module)
    names = leaf_names(example)
    found: Dimensions = [{} for _ in names]
    for size in open_sizes(module):
        # One sample of length one would be a constant to the exporter, as one sample is.
        dimension = torch.export.Dim(size.name, min=size.min, max=size.max)
        for name, place in size.inputs.items():
            found[names.index(name)][place] = dimension
    return found


def example_size(size: int | torch.SymInt) -> int:
    """A size in the example that a graph was made with; `int()` would fix an open one for good."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else size


def _of_graph(graph: fx.GraphModule) -> Dimensions:
    values = [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]
    dimensions: dict[str, Any] = {}
    found: Dimensions = []
    for value in values:
        shape = () if value is None else value.shape
        found.append(
            {
                place: _dimension(size, dimensions)
                for place, size in enumerate(shape)
                if place and isinstance(size, torch.SymInt) and not size.node.expr.is_number
            }
        )
    return found


def _dimension(size: torch.SymInt, known: dict[str, Any]) -> Any:
    """The dimension of a symbol, the same one wherever it stands."""
    symbol = size.node.expr
    if str(symbol) not in known:
        bounds = size.node.shape_env.var_to_range[symbol]
        name = f"size{len(known)}"
        known[str(symbol)] = torch.export.Dim(name, min=int(bounds.lower), max=int(bounds.upper))
    return known[str(symbol)]
