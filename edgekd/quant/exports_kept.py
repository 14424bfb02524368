"""Keeps the graph of the network that was exported last: a plan's checks, its rehearsal and the run
export the same one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

from torch import fx, nn

from edgekd.network.calling import open_sizes
from edgekd.network.identity import module_key
from edgekd.values.tree import Tree, named_leaves


@dataclass(frozen=True)
class _Kept:
    module: ReferenceType[nn.Module]
    key: tuple[Any, ...]
    graph: fx.GraphModule


_last: list[_Kept] = []


def kept_or_made(
    module: nn.Module, example: Tree, options: tuple[Any, ...], make: Callable[[], fx.GraphModule]
) -> fx.GraphModule:
    """A copy of the graph that `make` gave when it was last called for this module, with the same
    weights, attributes, sizes of the example and options; otherwise what it gives now."""
    key = (module_key(module), _sizes(example), repr(open_sizes(module)), options)
    for kept in _last:
        if kept.module() is module and kept.key == key:
            return copy.deepcopy(kept.graph)
    _last.clear()
    graph = make()
    _last.append(_Kept(ref(module, _forget), key, copy.deepcopy(graph)))
    return graph


def _forget(module: ReferenceType[nn.Module]) -> None:
    _last[:] = [kept for kept in _last if kept.module is not module]


def _sizes(example: Tree) -> tuple[Any, ...]:
    """Names, types and sizes of the inputs, but for the batch."""
    return tuple(
        (name, value.dtype, tuple(value.shape[1:])) for name, value in named_leaves(example).items()
    )
