"""Which integers a network can look up: the limits of each place of its integer inputs.

The network runs once on integers that are all different and 2**32 apart. Where it looks one up in a
table, its place is still known after reshaping, slicing, and adding an offset, as networks do
that keep several tables in one. What is found so is then tried.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.data.limits import Limits, limits_fault
from edgekd.errors import InputError, first_line
from edgekd.network.evaluation import evaluating
from edgekd.values.tree import Tree, count, leaf_names, leaves, like, one, rows

BITS = 32
HALF = 1 << (BITS - 1)
NO_LIMIT = 1 << 62

aten = torch.ops.aten
BAGS = (aten._embedding_bag.default, aten._embedding_bag_forward_only.default)

SIZES = (
    aten._local_scalar_dense.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
)
"""Operators that may make a number in a tensor the size of another one: a length becomes a mask by
`arange(lengths.max())`, for which there is no memory if the length is a mark."""


def index_limits(module: nn.Module, example: Tree) -> dict[str, Limits]:
    """By name of an input: the lowest and highest integer that each of its places may hold.

    `example` is a batch of one. An input is missing where it is not looked up, or where the
    integers are changed first by more than an offset.
    """
    tensors = leaves(example)
    integers = [n for n, leaf in enumerate(tensors) if leaf.dtype == torch.int64]
    if not integers:
        return {}
    with evaluating(module), torch.no_grad():
        found = _looked_up(module, example, integers)
        if found is None:  # one of them steers the network, such as the length of a sequence
            alone = [_looked_up(module, example, [n]) or {} for n in integers]
            found = {n: limits for each in alone for n, limits in each.items()}
        for n, limits in found.items():
            tensors[n] = tensors[n].clamp(limits.low, limits.high)
        names, safe = leaf_names(example, ""), like(example, tensors)
        return {names[n]: limits for n, limits in found.items() if _holds(module, safe, n, limits)}


def _looked_up(module: nn.Module, example: Tree, integers: list[int]) -> dict[int, Limits] | None:
    """The limits of these leaves, by number, as the tables are that they reach; None where the
    network does not run on marks."""
    tensors = leaves(example)
    sizes = [tensors[n].numel() for n in integers]
    watch = _Watch(sum(sizes))
    marked = list(tensors)
    for n, first, size in zip(integers, _starts(sizes), sizes, strict=True):
        places = torch.arange(first, first + size).reshape(tensors[n].shape)
        marked[n] = (places + 1) << BITS
    try:
        with watch:
            module(like(example, marked))
    except Exception:
        return None
    found = {}
    for n, first, size in zip(integers, _starts(sizes), sizes, strict=True):
        shape = tensors[n].shape[1:]
        low, high = (bound[first : first + size] for bound in (watch.low, watch.high))
        if bool((high < NO_LIMIT).any()):
            found[n] = Limits(low.reshape(shape), high.reshape(shape))
    return found


def lookup_fault(
    module: nn.Module, x: Tree, numbers: Sequence[int] | Tensor, where: str
) -> InputError | None:
    """A fault for the first sample of a batch with an integer that the network can't look up, as
    far as its limits are known; `numbers` are those of the samples in their source."""
    limits = index_limits(module, rows(x, slice(1)))
    for row in range(count(x) if limits else 0):
        fault = limits_fault(one(x, row), limits, f"sample {int(numbers[row])}", where)
        if fault is not None:
            return fault
    return None


BEYOND = ("out of range", "out of bounds", "not in the valid range")
"""How PyTorch's errors that aren't an `IndexError` say that an index lies outside a table."""


def index_error(module: nn.Module, x: Tree) -> str:
    """What the network says of an index out of range; empty for none, and for any other error."""
    try:
        with torch.no_grad():
            module(x)
    except Exception as error:
        words = first_line(error)
        beyond = isinstance(error, IndexError) or any(each in words for each in BEYOND)
        return words if beyond else ""
    return ""


def _is_marked(value: Any) -> bool:
    whole = isinstance(value, Tensor) and value.dtype == torch.int64 and value.numel() > 0
    return whole and bool(value.abs().max() >= HALF)


def _starts(sizes: list[int]) -> list[int]:
    return [sum(sizes[:n]) for n in range(len(sizes))]


def _holds(module: nn.Module, example: Tree, place: int, limits: Limits) -> bool:
    """Whether the network runs at both limits, and fails beyond each."""
    tensors = leaves(example)
    known = limits.high < NO_LIMIT

    def fails(values: Tensor) -> bool:
        changed = list(tensors)
        changed[place] = torch.where(known, values, tensors[place])
        return bool(index_error(module, like(example, changed)))

    inside, beyond = (limits.low, limits.high), (limits.low - 1, limits.high + 1)
    return not any(map(fails, inside)) and all(map(fails, beyond))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is looked up in which table, and keeps every look-up within it."""

    def __init__(self, places: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.low = torch.full((places,), -NO_LIMIT)
        self.high = torch.full((places,), NO_LIMIT)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = list(args)
        if func in SIZES and any(_is_marked(each) for each in leaves(given)):
            raise RuntimeError("an input says how large something is")
        if func is aten.embedding.default or func in BAGS:
            given[1] = self._within(given[1], len(given[0]), 0)
        elif func is aten.index_select.default:
            given[2] = self._within(given[2], given[0].shape[given[1]], 0)
        elif func is aten.index.Tensor:
            sizes = given[0].shape
            given[1] = [
                self._within(index, size, -size)
                for index, size in zip(given[1], sizes, strict=False)
            ]
        run: Callable[..., Any] = func
        return run(*given, **(kwargs or {}))

    def _within(self, index: Tensor | None, size: int, least: int) -> Tensor | None:
        if index is None or index.dtype != torch.int64:
            return index
        values = index.detach().flatten()
        places = (values + HALF) >> BITS
        offsets = values - (places << BITS)
        known = (places > 0) & (places <= len(self.low))
        at, offset = places[known] - 1, offsets[known]
        self.low.scatter_reduce_(0, at, least - offset, "amax")
        self.high.scatter_reduce_(0, at, size - 1 - offset, "amin")
        return index.remainder(size)
