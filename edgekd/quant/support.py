"""Lists a candidate's operators and where a target runs them."""

from collections.abc import Collection
from typing import cast
from weakref import WeakKeyDictionary

from torch import fx, nn

from edgekd.errors import EdgekdError, InputError, raise_all
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import computes
from edgekd.quant.weight_only import as_float
from edgekd.values.artifact import OpPlacement, Placement
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target

_KNOWN: WeakKeyDictionary[nn.Module, list[tuple[str, str]]] = WeakKeyDictionary()
"""The operators of networks that were asked for: every backend of a plan asks for the same ones.
Training changes a network's weights, not its operators; other stages make another network."""


def operators(candidate: Candidate, where: str) -> list[tuple[str, str]]:
    """(layer, 'aten.conv2d') for every operator of a candidate, in order."""
    if candidate.module not in _KNOWN:
        _KNOWN[candidate.module] = _operators(candidate, where)
    return list(_KNOWN[candidate.module])


def _operators(candidate: Candidate, where: str) -> list[tuple[str, str]]:
    if candidate.form == "float" or candidate.form == "fp16":
        graph = export_graph(candidate.module, candidate.example, where)
    else:
        graph = cast(fx.GraphModule, candidate.module)
    if candidate.form == "weights":
        graph, _ = as_float(graph)
    return graph_operators(graph)


def graph_operators(graph: fx.GraphModule) -> list[tuple[str, str]]:
    """(layer, 'aten.conv2d') for every operator of a graph, in order."""
    return [(layer_of(node), ops.name_of(node)) for node in graph.graph.nodes if computes(node)]


def place(
    candidate: Candidate, target: Target, unit: Placement, where: str
) -> tuple[OpPlacement, ...]:
    """Every operator placed on one unit. Raises `InputError` naming those that the target can't
    run."""
    ops_used = operators(candidate, where)
    raise_all(unsupported(ops_used, target.unsupported_ops, f"{where} on {target.name}"))
    return tuple(OpPlacement(name=layer, op=op, placement=unit) for layer, op in ops_used)


def unsupported(
    found: Collection[tuple[str, str]], refused: Collection[str], where: str
) -> list[EdgekdError]:
    """A fault for each unsupported operator; `aten.` may be omitted from a name."""
    names = {name.removeprefix("aten.") for name in refused}
    return [
        InputError(
            f"layer '{layer}' needs {op}, which this target can't run",
            where=where,
            hint="choose another student, or another backend",
        )
        for layer, op in dict.fromkeys(found)
        if op.removeprefix("aten.") in names
    ]
