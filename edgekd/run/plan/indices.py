"""Ids beyond the table that a network looks them up in, found before training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgekd.data.inputs import Held
from edgekd.data.samples import Data, Samples
from edgekd.errors import InputError, first_line
from edgekd.values.tree import Tree, count, leaves, mapped, named_leaves, rows

TOGETHER = 256


def index_fault(module: nn.Module, data: Data, where: str) -> InputError | None:
    """The first sample in memory with an integer that the network can't index by, if there is one.

    Two samples stand for all: one of the largest and one of the smallest integers of every place.
    """
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        if not isinstance(part.inputs, Held):
            continue
        tree = part.inputs.tree
        if not any(leaf.dtype == torch.int64 for leaf in leaves(tree)):
            return None
        ends = (_extreme(tree, torch.amax), _extreme(tree, torch.amin))
        if any(_fails(module, end) for end in ends):
            source = "train" if name == "validation" and data.held_back else name
            fault = _located(module, part, f"{where}: {source}")
            if fault is not None:
                return fault
    return None


def _extreme(tree: Tree, reduced: Callable[..., Tensor]) -> Tree:
    return mapped(
        lambda leaf: reduced(leaf, 0, keepdim=True) if leaf.dtype == torch.int64 else leaf[:1],
        tree,
    )


def _fails(module: nn.Module, x: Tree) -> str:
    """What the network says of an index out of range; every other error is told elsewhere."""
    try:
        with torch.no_grad():
            module(x)
    except IndexError as error:
        return first_line(error)
    except Exception:
        return ""
    return ""


def _located(module: nn.Module, part: Samples, where: str) -> InputError | None:
    whole = part.inputs.whole()
    for start in range(0, count(whole), TOGETHER):
        some = rows(whole, slice(start, start + TOGETHER))
        if not _fails(module, some):
            continue
        for number in range(count(some)):
            sample = rows(some, slice(number, number + 1))
            said = _fails(module, sample)
            if said:
                return _fault(sample, int(part.rows[start + number]), said, where)
    return None


def _fault(sample: Tree, number: int, said: str, where: str) -> InputError:
    spans = [
        f"{name} {int(leaf.min())} to {int(leaf.max())}"
        for name, leaf in named_leaves(sample).items()
        if leaf.dtype == torch.int64
    ]
    return InputError(
        f"the network fails on sample {number}, with {', '.join(spans)}: {said}",
        where=where,
        allowed="ids from 0 to below the size of the table that they look up",
        hint="is the vocabulary that of the network?",
    )
