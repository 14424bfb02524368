"""Finds coupled channels, and removes them from every layer that they run through. A run of the
network traces each channel from the layer that produces it to every layer that reads it
(`coupling`). The result is always verified: a group can be cut only if the network without some of
its channels computes what the whole network computes with those channels silenced.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import nn

from edgekd.errors import InputError, first_line
from edgekd.network.identity import structure_key
from edgekd.stages.prune.choices import proven_groups
from edgekd.stages.prune.coupling.trace import plain_kernels
from edgekd.stages.prune.cutting import Removed, cut_parameters, output_shapes
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.proof import Deadline, Proof
from edgekd.values.tree import Tree, forms

SECONDS = 60.0
"""The time limit for tracing a network's channels, all tries together."""


def channel_groups(
    module: nn.Module, example: Tree, seconds: float = SECONDS, heads: bool = False
) -> list[Group]:
    """Every group of coupled channels, in the order of the network; nothing is changed. A group
    that can't be cut has a `reason`. That includes groups without which the network does not run or
    computes something other than with these channels silenced. Where reshapes leave open whether
    whole heads or a part of each is removed, `heads` prefers the former. Raises `InputError` if
    the network can't be traced, or not within `seconds`. The groups of the module that was asked
    for last are kept, since a plan's checks, its rehearsal and the run ask for the same.
    """
    key = (structure_key(module), *forms(example), heads)
    for kept in _last:
        if kept.module() is module and kept.key == key:
            return list(kept.groups)
    try:
        groups = proven_groups(Proof(module, example, Deadline(seconds)), heads)
    except InputError:
        raise
    except Exception as error:  # whatever the network's own forward raises
        text = f"its channels can't be traced: {first_line(error)}"
        raise InputError(text, where="model") from None
    _last[:] = [_Kept(ref(module, _forget), key, tuple(groups))]
    return groups


@dataclass(frozen=True)
class _Kept:
    module: ReferenceType[nn.Module]
    key: tuple[Any, ...]
    groups: tuple[Group, ...]


_last: list[_Kept] = []


def _forget(module: ReferenceType[nn.Module]) -> None:
    _last[:] = [kept for kept in _last if kept.module is not module]


def remove_channels(
    module: nn.Module,
    example: Tree,
    removals: Mapping[str, Sequence[int]],
    groups: Sequence[Group] | None = None,
) -> nn.Module:
    """A copy without the channels that `removals` lists by group name. `groups` are those of this
    network, and are computed if not given. Raises `InputError` if the smaller network does not run
    or its outputs have a different shape.
    """
    groups = channel_groups(module, example) if groups is None else groups
    smaller = copy.deepcopy(module)
    for part in smaller.modules():
        part.training = False
    names = ", ".join(removals)
    try:
        cut_parameters(smaller, indices_of(groups, removals))
        with torch.no_grad(), plain_kernels():
            shapes, expected = output_shapes(smaller(example)), output_shapes(module(example))
    except Exception as error:  # whatever the network's own forward raises
        text = f"the network does not run without these channels: {first_line(error)}"
        raise InputError(text, where=names) from None
    if shapes != expected:
        text = f"without these channels the output is {shapes}, not {expected}"
        raise InputError(text, where=names)
    return smaller


def indices_of(groups: Sequence[Group], removals: Mapping[str, Sequence[int]]) -> Removed:
    """The indices to remove from each parameter to remove these channels."""
    by_name = {group.name: group for group in groups}
    gone: dict[tuple[str, int], set[int]] = {}
    for name, channels in removals.items():
        group, wanted = by_name[name], set(channels)
        units = {number for number, unit in enumerate(group.units) if wanted & set(unit)}
        for part in group.slices:
            chosen = {i for i, u in zip(part.indices, part.units, strict=True) if u in units}
            if chosen:
                gone.setdefault((part.parameter, part.dim), set()).update(chosen)
    return gone
