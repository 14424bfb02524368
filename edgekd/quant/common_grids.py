"""One grid for the values of all steps of a recurrent layer.

A state that is on another grid at every step is requantized at every step, and a small state of the
first steps would have a finer grid than the kernels of a loop could give it. Values that are joined
or only moved are on the grid of what they hold, so they belong to the group too.
"""

from collections.abc import Collection, Iterable
from typing import Any

from torch import fx
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from edgekd.quant import ops
from edgekd.quant.constants import is_constant
from edgekd.quant.fixed_grids import fixed_grid, has_fixed_grids
from edgekd.quant.quantizer import ActivationFakeQuantize, ExtremesObserver
from edgekd.quant.recurrent_cells import GROUP
from edgekd.values.target import Scheme


def grid_groups(graph: fx.GraphModule, apart: Collection[str] = ()) -> dict[str, str]:
    """The group of every value of a recurrent layer, by the names of node and group.

    `graph` is a float or a fake-quantized one; joins named in `apart` stay in float.
    """
    groups = _Union()
    named: dict[str, str] = {}
    for node in graph.graph.nodes:
        if GROUP in node.meta and node.op in ("call_function", "placeholder"):
            groups.join(named.setdefault(node.meta[GROUP], node.name), node.name)
        for source in _on_one_grid(node, apart):
            groups.join(source.name, node.name)
    recurrent = {groups.root(name) for name in named.values()}
    names = (node.name for node in graph.graph.nodes)
    return {name: groups.root(name) for name in names if groups.root(name) in recurrent}


def _on_one_grid(node: fx.Node, apart: Collection[str]) -> Iterable[fx.Node]:
    """The values that a node only moves or joins."""
    if node.name in apart:
        return ()
    if node.target in ops.JOINED:
        return [part for part in ops.joined_by(node) if not is_constant(part)]
    source: Any = node.args[0] if node.args else None
    moves = node.target in ops.SHARED or node.op == "call_module"
    return [source] if moves and isinstance(source, fx.Node) and not is_constant(source) else ()


class _Union:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}

    def root(self, name: str) -> str:
        while name in self.parents:
            name = self.parents[name]
        return name

    def join(self, first: str, second: str) -> None:
        first, second = self.root(first), self.root(second)
        if first != second:
            self.parents[second] = first


def share_observed(graph: fx.GraphModule, scheme: Scheme) -> None:
    """Give each group of a graph that is prepared for training one fake quantizer, and each
    constant, such as the weight that all steps read, one as well."""
    groups = grid_groups(graph)
    first: dict[tuple[str, bool], Any] = {}
    for node in list(graph.graph.nodes):
        source: Any = node.args[0] if node.op == "call_module" else None
        part = graph.get_submodule(str(node.target)) if source is not None else None
        if not isinstance(part, FakeQuantize):
            continue
        activation = isinstance(part, ActivationFakeQuantize)
        if is_constant(source) and not activation:
            earlier = first.setdefault((source.name, False), node)
            if earlier is not node:
                node.replace_all_uses_with(earlier)
                graph.graph.erase_node(node)
        elif source.name in groups and not (has_fixed_grids(scheme) and fixed_grid(source)):
            fresh = _watching_extremes(part)
            group = f"{groups[source.name]} in {fresh.dtype}"
            shared = first.setdefault((group, True), fresh)
            graph.set_submodule(str(node.target), shared)
    graph.recompile()


def _watching_extremes(part: ActivationFakeQuantize) -> ActivationFakeQuantize:
    """A fake quantizer like this one whose range is that of all values it has seen."""
    observer = part.activation_post_process
    fresh: ActivationFakeQuantize = ActivationFakeQuantize(
        observer=ExtremesObserver,
        quant_min=observer.quant_min,
        quant_max=observer.quant_max,
        dtype=observer.dtype,
        qscheme=observer.qscheme,
    )
    fresh.train(part.training)
    return fresh
