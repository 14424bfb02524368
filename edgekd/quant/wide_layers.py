"""Single layers with activations of 16 bits in a network of eight.

A kernel reads and writes values of one width. What a named layer reads and writes has 16 bits, so
the operators on the other side of those values compute in 16 bits too; operators that only move
values (a reshape, a concatenation) count as part of the way. Where a value changes its width, an
operator changes its grid (`ops.REGRID`), which every file has as a requantization.
"""

from collections.abc import Callable, Collection, Iterable

from torch import fx

from edgekd.network.fx_names import module_paths
from edgekd.network.taps import is_within
from edgekd.quant import ops
from edgekd.quant.chains import chains_of
from edgekd.quant.regions import data_inputs, integer_nodes, is_float
from edgekd.quant.widths import READS, WRITES, bits_written, fused_clamp, is_float_layer

EVERY_LAYER: tuple[str, ...] = ("*",)
"""The name that all layers have."""

WIDE_LIMIT = 32767
"""Grids of 16 bits are symmetric: they have no -32768."""

_MOVING = ops.SHARED | ops.JOINED


def wide_nodes(
    graph: fx.GraphModule, layers: Collection[str], floats: Collection[str] = ()
) -> set[fx.Node]:
    """The operators that compute in 16 bits where these layers do; layers and nodes named in
    `floats` stay in float."""
    if not layers:
        return set()
    parts = _kernels(graph, floats)
    found = {part for node in parts if is_named(node, layers) for part in parts[node]}
    others: set[fx.Node] = set()
    for node in found:
        others |= _reached(node, lambda each: each.users, parts)
        others |= _reached(node, data_inputs, parts)
    return found | {part for node in others for part in parts[node]}


def is_named(node: fx.Node, layers: Collection[str]) -> bool:
    """Whether a node has one of these names, or is inside a module that has."""
    if "*" in layers:
        return True
    return any(is_within(path, layers) for path in (*module_paths(node), node.name))


def _kernels(graph: fx.GraphModule, floats: Collection[str]) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """The nodes that compute as one, for each node that computes in integers: the operators of a
    chain, a layer with the clamp that is fused to it."""
    chains, integer = chains_of(graph), integer_nodes(graph, floats)
    parts: dict[fx.Node, tuple[fx.Node, ...]] = {}
    for node in graph.graph.nodes:
        if node not in integer or is_float_layer(node, floats):
            continue
        whole = chains[node].nodes if node in chains else (node,)
        clamp = fused_clamp(node)
        if clamp is not None:
            whole = (*whole, clamp)
        if node not in parts:
            parts.update(dict.fromkeys(whole, whole))
    return parts


def _reached(
    start: fx.Node, step: Callable[[fx.Node], Iterable[fx.Node]], kernels: Collection[fx.Node]
) -> set[fx.Node]:
    """The integer operators next to a node in one direction, past those that only move values."""
    waiting, found = [start], set()
    while waiting:
        for node in step(waiting.pop()):
            if node in kernels and node not in found:
                found.add(node)
                if node.target in _MOVING:
                    waiting.append(node)
    return found


def mark_wide(graph: fx.GraphModule, layers: Collection[str], floats: Collection[str] = ()) -> None:
    """Let the operators of these layers, and those around them, compute in 16 bits, and change the
    grid of every value where its width changes. The graph is changed."""
    wide = wide_nodes(graph, layers, floats)
    if not wide:
        return
    integer = set(_kernels(graph, floats))
    for node in wide:
        node.meta[WRITES] = 16
    for node in graph.graph.nodes:
        readers = [user for user in node.users if user in integer]
        if node.op == "placeholder" and readers and wide.issuperset(readers):
            node.meta[WRITES] = 16
    for node in list(graph.graph.nodes):
        if is_float(node) and (node in integer or node.op == "placeholder"):
            _change_width(graph, node, [user for user in node.users if user in integer])
    graph.graph.lint()
    graph.recompile()


def _change_width(graph: fx.GraphModule, value: fx.Node, readers: list[fx.Node]) -> None:
    """Let readers of another width read a value through one change of its grid."""
    own = bits_written(value)
    others = [reader for reader in readers if bits_written(reader) != own]
    if not others:
        return
    with graph.graph.inserting_after(value):
        moved = graph.graph.call_function(ops.REGRID, (value,))
    moved.meta.update(value.meta)
    moved.meta[WRITES], moved.meta[READS] = 24 - own, own
    for reader in others:
        reader.replace_input_with(value, moved)
