"""Operators of 16 bits that TFLite's converter can't write, though the runtime may have a kernel.

A mark, a product with a number that no network has, keeps the converter from quantizing the
operator behind it. It writes floats there, and the backend puts the integer operator in their place
where there is one, and else removes the mark.
"""

from typing import Any

import torch
from torch import fx

from edgekd.quant import ops
from edgekd.quant.chains import Chain, chains_of
from edgekd.quant.constants import add_constant, constant_of, free_name
from edgekd.quant.rewrite import DEQUANTIZE, is_weight

aten = torch.ops.aten

MARK = 1.0 + 2.0**-20
"""The factor of a mark, which 32-bit floats hold."""

ADDED = 2.0**-60
"""What a second mark adds, where a first alone would be quantized."""

_WRITTEN = {aten.exp.default, aten.abs.default}
"""Functions of one value that the converter writes in 16 bits."""

_UNWRITTEN = {
    aten.cat.default,
    aten.roll.default,
    aten.index_select.default,
    aten.neg.default,
    aten.expand.default,
}


def marked(graph: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value behind a mark."""
    with graph.graph.inserting_after(value):
        node = graph.graph.call_function(aten.mul.Tensor, (value, MARK))
    node.meta.update(value.meta)
    return node


def twice_marked(graph: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value behind two marks, which keep operators of eight and 16 bits apart."""
    first = marked(graph, value)
    with graph.graph.inserting_after(first):
        node = graph.graph.call_function(aten.add.Tensor, (first, ADDED))
    node.meta.update(value.meta)
    return node


def shield_wide(graph: fx.GraphModule) -> None:
    """Put marks before operators of 16 bits that the converter can't write in integers."""
    chains = chains_of(graph)
    inside = {node for chain in chains.values() for node in chain.nodes}
    for node in list(graph.graph.nodes):
        if node in chains and _reads_wide(chains[node].source) and not is_written(chains[node]):
            mark = marked(graph, chains[node].source)
            for part in chains[node].nodes:
                part.replace_input_with(chains[node].source, mark)
            _mark_behind(graph, node)
        elif node not in inside and _has_no_form(graph, node):
            wide = [source for source in node.all_input_nodes if _reads_wide(source)]
            for source in wide:
                node.replace_input_with(source, _apart(graph, source))
            if wide and node.target in _UNWRITTEN:
                _mark_behind(graph, node)


def _mark_behind(graph: fx.GraphModule, node: fx.Node) -> None:
    """The converter takes a grid behind an operator that moves or chooses values to its inputs."""
    mark = marked(graph, node)
    node.replace_all_uses_with(mark, lambda user: user is not mark)


def is_written(chain: Chain) -> bool:
    """Whether a function of one value has an operator of 16 bits in a file."""
    return len(chain.nodes) == 1 and chain.tail.target in _WRITTEN


def _reads_wide(source: fx.Node) -> bool:
    return source.target in DEQUANTIZE and source.args[-1] is torch.int16


def _has_no_form(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the converter has no operator of 16 bits: also for sums with constants, whose
    constant it would write in eight."""
    if node.target in ops.SUMS:
        return any(is_weight(source) for source in node.all_input_nodes)
    return node.target in _UNWRITTEN


def _apart(graph: fx.GraphModule, source: fx.Node) -> fx.Node:
    """A value behind a mark, or a constant as floats."""
    if not is_weight(source):
        return marked(graph, source)
    quantize: Any = source.args[0]
    value = constant_of(graph, quantize.args[0])
    with graph.graph.inserting_before(source):
        return add_constant(graph, free_name(graph, f"{source.name}_plain"), value)
