"""Ids beyond the table that a network looks them up in, found before training where possible."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgekd.data.inputs import Held
from edgekd.data.limits import VOCABULARY, Limits, limits_fault, narrowed
from edgekd.data.probe import spread
from edgekd.data.samples import Data, Samples
from edgekd.data.streamed import Streamed
from edgekd.errors import InputError, raise_all
from edgekd.network.index_limits import index_error, index_limits
from edgekd.network.longest import length_fault
from edgekd.values.tree import Tree, count, leaves, mapped, named_leaves, one, rows

TOGETHER = 256

PARTS = ("train", "validation", "test")

SEARCHED_S = 10.0
"""So long the plan reads each streamed part for ids beyond a table; the samples that it doesn't
reach are checked when they are read."""


def within_tables(data: Data, networks: Sequence[nn.Module]) -> Data:
    """The same data, whose streamed samples are checked against the networks' tables when they
    are read. `InputError` names the first sample with an integer that a network can't look up: of
    all in memory, and of as many streamed ones as are read quickly."""
    if not any(leaf.dtype == torch.int64 for leaf in leaves(data.example)):
        return data
    limits: dict[str, Limits] = {}
    for module in networks:
        limits = narrowed(limits, index_limits(module, data.example))
    parts = {name: _checked(getattr(data, name), limits) for name in PARTS}
    for name, part in parts.items():
        if isinstance(part.inputs, Streamed):
            _search(part.inputs)
        else:
            source = "train" if name == "validation" and data.held_back else name
            _check_held(networks, part, limits, f"data '{data.name}': {source}")
    train, validation, test = parts.values()
    return replace(data, train=train, validation=validation, test=test)


def _checked(part: Samples, limits: Mapping[str, Limits]) -> Samples:
    if not limits or not isinstance(part.inputs, Streamed):
        return part
    return Samples(part.inputs.within(limits), part.y, part.ids, part.paired, part.task)


def _search(stream: Streamed) -> None:
    """Read as many samples as `SEARCHED_S` allows, evenly over all of them."""
    if not stream.reader.limits:
        return
    most = 1 + int(SEARCHED_S / max(stream.seconds, 1e-6))
    few = torch.tensor(spread(len(stream), most), dtype=torch.int64)
    for _ in stream.chosen(few).chunks(TOGETHER):
        pass


def _check_held(
    networks: Sequence[nn.Module], part: Samples, limits: Mapping[str, Limits], where: str
) -> None:
    """Two samples stand for all where no limits are known: one of the largest and one of the
    smallest integers of every place."""
    assert isinstance(part.inputs, Held)
    tree = part.inputs.tree
    for name, leaf in named_leaves(tree, "").items():
        if name in limits and bool(limits[name].outside(leaf).any()):
            number = int(limits[name].outside(leaf).flatten(1).any(1).int().argmax())
            sample = one(tree, number)
            fault = limits_fault(sample, limits, f"sample {int(part.rows[number])}", where)
            raise_all([fault] if fault else [])
    ends = (_extreme(tree, torch.amax), _extreme(tree, torch.amin))
    for module in networks:
        if any(index_error(module, end) for end in ends):
            fault = _located(module, part, where)
            raise_all([fault] if fault else [])


def _extreme(tree: Tree, reduced: Callable[..., Tensor]) -> Tree:
    return mapped(
        lambda leaf: reduced(leaf, 0, keepdim=True) if leaf.dtype == torch.int64 else leaf[:1],
        tree,
    )


def _located(module: nn.Module, part: Samples, where: str) -> InputError | None:
    whole = part.inputs.whole()
    for start in range(0, count(whole), TOGETHER):
        some = rows(whole, slice(start, start + TOGETHER))
        if not index_error(module, some):
            continue
        for number in range(count(some)):
            sample = rows(some, slice(number, number + 1))
            message = index_error(module, sample)
            if message:
                place = int(part.rows[start + number])
                longer = length_fault(module, sample, [place], where)
                return longer or _fault(sample, place, message, where)
    return None


def _fault(sample: Tree, number: int, message: str, where: str) -> InputError:
    spans = [
        f"{name} {int(leaf.min())} to {int(leaf.max())}"
        for name, leaf in named_leaves(sample).items()
        if leaf.dtype == torch.int64
    ]
    return InputError(
        f"the network fails on sample {number}, with {', '.join(spans)}: {message}",
        where=where,
        allowed="ids from 0 to below the size of the table that they look up",
        hint=VOCABULARY,
    )
