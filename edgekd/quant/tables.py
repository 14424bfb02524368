"""Functions between two grids as tables, which a backend stores in place of the operators.

Exporters know no operator for a table. So each function becomes an operator with a mark, a number
that no network has, and the backend replaces that operator in the finished file.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from edgekd.quant.chains import Chain, table_of
from edgekd.quant.constants import add_constant, free_name
from edgekd.quant.inserting import replace_by
from edgekd.quant.inspection import integer_chains
from edgekd.quant.rewrite import QUANTIZE, on_grid
from edgekd.quant.unfolding import value_of

aten = torch.ops.aten

_MARK = 2.0**-22
"""The mark of the first table; the others have multiples."""


@dataclass(frozen=True, eq=False)
class Table:
    """`values` (channels, 256) from the lowest integer on, for one channel or each, on the grid of
    `scale` and `zero`; `mark` is that of the operator in its place. `rank` is the number of
    dimensions of what reads it."""

    mark: float
    values: np.ndarray
    rank: int
    scale: float
    zero: int


StandIn = Callable[[fx.GraphModule, fx.Node, Table], fx.Node]


def leaky_relu(graph: fx.GraphModule, source: fx.Node, table: Table) -> fx.Node:
    """A leaky ReLU whose slope is the mark."""
    return graph.graph.call_function(aten.leaky_relu.default, (source, table.mark))


def product(graph: fx.GraphModule, source: fx.Node, table: Table) -> fx.Node:
    """A product with quantized numbers, one or one for each channel; their scale is the mark."""
    grid = (table.mark, 0, -128, 127, torch.int8)
    shape = [1] * value_of(source).dim()
    if len(shape) > 1:
        shape[1] = len(table.values)
    number = add_constant(graph, free_name(graph, "table"), torch.full(shape, table.mark))
    return graph.graph.call_function(aten.mul.Tensor, (source, on_grid(graph, number, grid)))


def with_tables(
    graph: fx.GraphModule, wanted: Callable[[Chain], bool], stand_in: StandIn
) -> tuple[fx.GraphModule, list[Table]]:
    """A copy of a quantized graph in which operators with marks stand for the wanted functions,
    and their tables."""
    marked = copy.deepcopy(graph)
    tables: list[Table] = []
    for chain in integer_chains(marked):
        grids = {user.args[1:] for user in chain.tail.users if user.target in QUANTIZE}
        before: Any = chain.source.args[1:]
        if len(grids) != 1 or before[-1] is torch.int16 or not wanted(chain):
            continue
        behind: Any = grids.pop()
        values = table_of(marked, chain, (before, behind)).numpy()
        rank = value_of(chain.source).dim()
        table = Table(_MARK * (len(tables) + 1), values, rank, *behind[:2])
        with marked.graph.inserting_before(chain.tail):
            node = stand_in(marked, chain.source, table)
        node.meta.update(chain.tail.meta)
        replace_by(chain.tail, node)
        tables.append(table)
    marked.graph.eliminate_dead_code()
    marked.recompile()
    return marked, tables
