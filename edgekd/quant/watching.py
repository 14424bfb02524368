"""Runs a graph on samples and looks at the values of some of its nodes."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import fx

from edgekd.values.tree import Tree, mapped


def watch(
    graph: fx.GraphModule,
    parts: Iterable[Tree],
    nodes: Collection[fx.Node],
    see: Callable[[fx.Node, Any], None],
) -> None:
    """Call `see(node, value)` for each of the `nodes` in each run, one for every part of the
    samples, in order of execution. Samples are copied, since a graph may change them."""

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n in nodes:
                see(n, result)
            return result

    if not nodes:
        return
    with torch.no_grad():
        for part in parts:
            Watched(graph).run(mapped(torch.clone, part))
