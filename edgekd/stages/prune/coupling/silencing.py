"""What a network gives without some of its channels, computed on the whole network.

Where channels are summed up, by a layer, a matrix product or a norm's statistics, the removed ones
are left out. That is what a network really without them must give.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.stages.prune.coupling.trace import SUMMED, Call, Layout

Kept = dict[int, Tensor]
"""By dimension the indices that stay, where some do not."""


class Silence(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A run without the removed atoms; `summed` is what a trace of the same network noted."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing compiles here, and telling the compiler to stay away imports it: a second."""
        return False

    def __init__(self, summed: Sequence[Layout], removed: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._summed = iter(summed)
        self._removed = removed

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call = Call(func._overloadpacket.__name__, func, args, kwargs or {}, None)
        if call.name in SUMMED:
            kept = self._kept(next(self._summed))
            result = _without_removed(kept, call) if kept else None
            if result is not None:
                return result
        return func(*args, **call.kwargs)

    def _kept(self, layout: Layout) -> Kept:
        return {
            dim: torch.from_numpy(np.flatnonzero(~self._removed[atoms]))
            for dim, atoms in layout.items()
            if self._removed[atoms].any()
        }


def _without_removed(kept: Kept, call: Call) -> Any:
    """The operation's result without the removed channels; None where it does not sum any up."""
    if call.name in ("native_layer_norm", "_fused_rms_norm"):
        return _layer_norm(kept, call)
    if call.name == "native_group_norm":
        return _group_norm(kept, call)
    if call.name in ("sum", "mean", "linalg_vector_norm"):
        return _reduced(kept, call)
    position = SUMMED[call.name]
    dim = 1 if call.name == "convolution" else call.args[position].dim() - 1
    return _silenced(kept, call, position, dim)


def _silenced(kept: Kept, call: Call, position: int, dim: int) -> Any:
    """The same with zeros in one argument's removed channels."""
    x = call.args[position]
    if dim not in kept:
        return None
    loud = x.index_select(dim, kept[dim])
    quiet = torch.zeros_like(x).index_copy(dim, kept[dim], loud)
    arguments = (*call.args[:position], quiet, *call.args[position + 1 :])
    return call.func(*arguments, **call.kwargs)


def _layer_norm(kept: Kept, call: Call) -> Any:
    x, shape, *rest = call.args
    offset = x.dim() - len(shape)
    smaller, parts = x, list(rest)
    places = [(dim, indices) for dim, indices in kept.items() if dim >= offset]
    for dim, indices in places:
        smaller = smaller.index_select(dim, indices)
        for number, part in enumerate(parts[:2]):
            if isinstance(part, Tensor):
                parts[number] = part.index_select(dim - offset, indices)
    if not places:
        return None
    found = call.func(smaller, list(smaller.shape[offset:]), *parts, **call.kwargs)
    return (_restored(found[0], x, places), *found[1:])


def _group_norm(kept: Kept, call: Call) -> Any:
    x, weight, bias, count, channels, places, groups, eps = call.args
    if 1 not in kept:
        return None
    indices = kept[1]
    weight, bias = (each if each is None else each[indices] for each in (weight, bias))
    groups = len(indices) if groups == channels else groups
    smaller = x.index_select(1, indices)
    found = call.func(smaller, weight, bias, count, len(indices), places, groups, eps)
    return (_restored(found[0], x, [(1, indices)]), *found[1:])


def _reduced(kept: Kept, call: Call) -> Any:
    x = call.args[0]
    position = 2 if call.name == "linalg_vector_norm" else 1
    given = call.argument(position, "dim")
    dims = [given] if isinstance(given, int) else list(given or range(x.dim()))
    smaller = x
    for dim in dims:
        if dim % x.dim() in kept:
            smaller = smaller.index_select(dim, kept[dim % x.dim()])
    return None if smaller is x else call.func(smaller, *call.args[1:], **call.kwargs)


def _restored(values: Tensor, like: Tensor, places: list[tuple[int, Tensor]]) -> Tensor:
    """The values in their places of the whole size, zeros elsewhere."""
    for dim, kept in reversed(places):
        shape = list(values.shape)
        shape[dim] = like.shape[dim]
        values = values.new_zeros(shape).index_copy(dim, kept, values)
    return values
