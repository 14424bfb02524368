"""Groups of coupled channels as pruning sees them: units, and the layers that they run through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import nn

from edgekd.stages.prune.coupling.atoms import Atoms, Numbers, Range
from edgekd.stages.prune.coupling.trace import Layout, Site, Trace
from edgekd.stages.prune.heads import attentions
from edgekd.stages.prune.kinds import (
    KERNELS,
    NORMS,
    RECURRENT,
    TRANSPOSED,
    goes_by_groups,
    group_count,
    is_kernel,
    makes_in_columns,
    recurrent_weights,
)

Axis = Literal["out", "in"]


@dataclass(frozen=True)
class Member:
    """One side of one layer: its channel `indices[k]` is removed with the group's channel
    `roots[k]`.

    `parameter` is the layer's own name for the weight.
    """

    layer: str
    axis: Axis
    indices: tuple[int, ...]
    roots: tuple[int, ...]
    parameter: str = "weight"


@dataclass(frozen=True)
class Slice:
    """The indices of one parameter's dimension: `indices[k]` is removed with the unit
    `units[k]`."""

    parameter: str
    dim: int
    indices: tuple[int, ...]
    units: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that must be removed together, named after the layer that produces them. `units` are
    what can be removed: single channels, one channel of each part that is divided in step, or a
    head. `reason` says why nothing can be removed, if so; `output` marks the channels of the
    network's output, which always stay.
    """

    name: str
    channels: int
    units: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]
    reason: str = ""
    output: bool = False
    heads: bool = False
    slices: tuple[Slice, ...] = ()
    sets: tuple[int, ...] = ()

    @property
    def layers(self) -> set[str]:
        """The layers that produce these channels."""
        return {member.layer for member in self.members if member.axis == "out"}

    @property
    def root(self) -> str:
        """The layer in the group's name; the name ends in a number if a layer has several
        groups."""
        return self.name.partition("[")[0]

    @property
    def can_go(self) -> bool:
        """Whether, as far as is known, some units can be removed."""
        return not (self.output or self.reason) and len(self.units) > 1

    def step(self, multiple: int) -> int:
        """How many units make up a multiple of that many channels in every layer."""
        counts = {len(unit) for unit in self.units}
        for member in self.members:
            counts.add(max(1, len(member.indices) // max(1, len(self.units))))
        return int(np.lcm.reduce([multiple // int(np.gcd(multiple, count)) for count in counts]))


@dataclass(frozen=True)
class Structure:
    """The findings of a trace: every atom's set, the sets that must stay, those of whole attention
    heads, and its choices."""

    ranges: Mapping[tuple[str, int], Range]
    roots: Numbers
    frozen: Mapping[int, str]
    outputs: frozenset[int]
    attending: frozenset[int]
    makers: frozenset[tuple[str, int]]
    sites: tuple[Site, ...]
    summed: tuple[Layout, ...]

    def sets(self, key: tuple[str, int]) -> Numbers:
        """(size,) the set of each index of one dimension of one parameter."""
        return self.roots[self.ranges[key].atoms]


def structure_of(trace: Trace) -> Structure:
    """The trace's findings, after the run."""
    atoms: Atoms = trace.atoms
    return Structure(
        dict(atoms.ranges),
        atoms.roots(),
        atoms.frozen(),
        frozenset(atoms.of_outputs()),
        frozenset(atoms.representatives(trace.attending)),
        frozenset(trace.makers),
        tuple(trace.sites),
        tuple(trace.summed),
    )


Key = tuple[str, int]


def groups_of(module: nn.Module, structure: Structure) -> list[Group]:
    """The groups, in the order of the network.

    Channels are in one group if they run through exactly the same layers, so that keeping one unit
    of each group leaves no layer empty. Layers that can't be pruned form separate groups.
    """
    order = {name: number for number, (name, _) in enumerate(module.named_modules())}
    blocks = {f"{name}.value": name for name in attentions(module)}
    clusters = _clusters(module, structure, order)
    touched = _touched(structure, [sets for _, sets in clusters])
    groups: list[Group] = []
    for number, (keys, sets) in enumerate(clusters):
        fixed = any(_is_attention(module, key) for key in keys)
        free = set() if fixed else sets - structure.frozen.keys() - structure.outputs
        if not free:
            groups.append(_whole(module, structure, keys, sets, touched[number]))
        for part, through in _alike(structure, free, touched[number]):
            groups.append(_group(module, structure, keys, part, through, blocks))
    return _named_apart(sorted(groups, key=lambda group: order[group.name]))


def _clusters(
    module: nn.Module, structure: Structure, order: Mapping[str, int]
) -> list[tuple[list[Key], set[int]]]:
    """Layers that share channels, in the order of the network, and the sets of those."""
    makers = [key for key in structure.makers if _makes(module, key)]
    clusters: list[tuple[list[Key], set[int]]] = []
    for key in sorted(makers, key=lambda key: order[_layer(key)]):
        keys, sets = [key], set(structure.sets(key).tolist())
        apart = []
        for other in clusters:
            if other[1] & sets:
                keys, sets = other[0] + keys, sets | other[1]
            else:
                apart.append(other)
        clusters = [*apart, (keys, sets)]
    return clusters


def _alike(
    structure: Structure, free: set[int], touched: Sequence[Key]
) -> list[tuple[set[int], list[Key]]]:
    """The free sets, those together that run through the same dimensions of parameters."""
    through: dict[int, list[Key]] = {each: [] for each in sorted(free)}
    for key in touched:
        for each in np.unique(structure.sets(key)).tolist():
            if each in through:
                through[each].append(key)
    parts: dict[tuple[Key, ...], set[int]] = {}
    for each, keys in through.items():
        parts.setdefault(tuple(keys), set()).add(each)
    return [(sets, list(keys)) for keys, sets in parts.items()]


def _named_apart(groups: Sequence[Group]) -> list[Group]:
    """The groups, a second one of a layer with its first channel in the name."""
    seen: set[str] = set()
    named = []
    for group in groups:
        name = group.name
        if name in seen:
            name = f"{name}[{group.units[0][0] if group.units else len(seen)}]"
        seen.add(name)
        named.append(replace(group, name=name))
    return named


def _touched(structure: Structure, clusters: Sequence[set[int]]) -> list[list[Key]]:
    """For each cluster of sets the parameters' dimensions that they run through."""
    owners = np.full(len(structure.roots), -1)
    for number, sets in enumerate(clusters):
        owners[list(sets)] = number
    touched: list[list[Key]] = [[] for _ in clusters]
    for key in structure.ranges:
        for number in np.unique(owners[structure.sets(key)]).tolist():
            if number >= 0:
                touched[number].append(key)
    return touched


def _layer(key: Key) -> str:
    return key[0].rpartition(".")[0]


def _makes(module: nn.Module, key: Key) -> bool:
    layer = module.get_submodule(_layer(key))
    others = (nn.Embedding, nn.MultiheadAttention, *RECURRENT)
    return is_kernel(layer) or isinstance(layer, others)


def _whole(
    module: nn.Module,
    structure: Structure,
    keys: Sequence[Key],
    sets: set[int],
    touched: Sequence[Key],
) -> Group:
    """The layers that can't be pruned: the outputs, and those with a reason."""
    reasons = [structure.frozen[each] for each in sorted(sets) if each in structure.frozen]
    if any(_is_attention(module, key) for key in keys):
        reasons.insert(0, "nn.MultiheadAttention fixes its width and its heads")
    output = bool(sets & structure.outputs)
    channels = structure.sets(keys[0]).tolist()
    return Group(
        name=_layer(keys[0]),
        channels=len(channels),
        units=(),
        members=_members(module, structure, touched, channels),
        reason="" if output else (reasons or ["none of its channels can be removed"])[0],
        output=output,
        sets=tuple(sorted(sets)),
    )


def _group(
    module: nn.Module,
    structure: Structure,
    keys: Sequence[Key],
    sets: set[int],
    touched: Sequence[Key],
    blocks: Mapping[str, str],
) -> Group:
    """Channels that run through the same layers."""
    makers = [key for key in keys if key in touched]
    channels = _channels(module, structure, makers, sets)
    units: dict[int, list[int]] = {}
    for number, each in enumerate(channels):
        if each in sets:
            units.setdefault(each, []).append(number)
    numbers = {each: number for number, each in enumerate(units)}
    heads = {blocks[_layer(key)] for key in makers if _layer(key) in blocks}
    known = [each if each in sets else -1 for each in channels]
    return Group(
        name=min(heads) if heads else _layer(_root(module, structure, makers, sets)),
        channels=len(channels),
        units=tuple(map(tuple, units.values())),
        members=_members(module, structure, touched, known),
        heads=bool(heads) or sets <= structure.attending,
        slices=_slices(structure, touched, numbers),
        sets=tuple(sorted(sets)),
    )


def _is_attention(module: nn.Module, key: Key) -> bool:
    return isinstance(module.get_submodule(_layer(key)), nn.MultiheadAttention)


def _root(module: nn.Module, structure: Structure, makers: Sequence[Key], sets: set[int]) -> Key:
    """The layer that gives the group its name and channel numbers: the first one that produces only
    these channels, if it is a plain kernel; otherwise the first.
    """

    def unfit(key: Key) -> tuple[bool, bool]:
        layer = module.get_submodule(_layer(key))
        plain = is_kernel(layer) and group_count(layer) == 1
        return not plain, set(structure.sets(key).tolist()) != sets

    return min(makers, key=unfit)


def _channels(
    module: nn.Module, structure: Structure, makers: Sequence[Key], sets: set[int]
) -> list[int]:
    """(channels,) the set of each channel of the root layer."""
    key = _root(module, structure, makers, sets)
    layer = module.get_submodule(_layer(key))
    repeats = group_count(layer) if isinstance(layer, TRANSPOSED) else 1
    channels: list[int] = structure.sets(key).tolist()
    return channels * repeats


def _slices(
    structure: Structure, touched: Sequence[Key], numbers: Mapping[int, int]
) -> tuple[Slice, ...]:
    slices = []
    wanted = np.array(sorted(numbers), dtype=np.int64)
    for parameter, dim in touched:
        sets = structure.sets((parameter, dim))
        indices = np.flatnonzero(np.isin(sets, wanted))
        if len(indices):
            units = tuple(numbers[each] for each in sets[indices].tolist())
            slices.append(Slice(parameter, dim, tuple(indices.tolist()), units))
    return tuple(slices)


def _members(
    module: nn.Module,
    structure: Structure,
    touched: Sequence[Key],
    channels: Sequence[int],
) -> tuple[Member, ...]:
    """The layers of known kinds that the channels run through, in the order of the network."""
    places: dict[int, list[int]] = {}
    for number, each in enumerate(channels):
        places.setdefault(each, []).append(number)
    members = []
    for name in dict.fromkeys(_layer(key) for key in touched):
        layer = module.get_submodule(name)
        for parameter, axis, dim in _sides(layer):
            key = (f"{name}.{parameter}".removeprefix("."), dim)
            if key not in touched:
                continue
            indices, roots = [], []
            seen: dict[int, int] = {}
            for index, each in enumerate(_expanded(layer, axis, structure.sets(key).tolist())):
                if each >= 0 and each in places:
                    turn = seen[each] = seen.get(each, -1) + 1
                    indices.append(index)
                    roots.append(places[each][turn % len(places[each])])
            if indices:
                members.append(Member(name, axis, tuple(indices), tuple(roots), parameter))
    return tuple(members)


def _sides(layer: Any) -> list[tuple[str, Axis, int]]:
    """The weight dimensions of a layer that produce channels, and those that read them."""
    if isinstance(layer, NORMS):
        last = getattr(getattr(layer, "weight", None), "ndim", 1) - 1
        return [("weight", "out", last if isinstance(layer, nn.LayerNorm) else 0)]
    if isinstance(layer, nn.Embedding):
        return [("weight", "out", 1)]
    if isinstance(layer, RECURRENT):
        return [side for name in recurrent_weights(layer) for side in _both(name, 0, 1)]
    if not is_kernel(layer):
        return []
    if goes_by_groups(layer):
        return [("weight", "out", 0)]
    return _both("weight", *((1, 0) if makes_in_columns(layer) else (0, 1)))


def _both(name: str, out: int, into: int) -> list[tuple[str, Axis, int]]:
    return [(name, "out", out), (name, "in", into)]


def _expanded(layer: nn.Module, axis: Axis, sets: list[int]) -> list[int]:
    """The sets of a layer's channels, where a grouped kernel has one index for all groups."""
    groups = group_count(layer)
    if groups == 1 or not isinstance(layer, KERNELS):
        return sets
    if goes_by_groups(layer):
        if isinstance(layer, TRANSPOSED):
            return [each for each in sets for _ in range(layer.weight.shape[1])]
        return sets
    columns = axis == "out" if isinstance(layer, TRANSPOSED) else axis == "in"
    return sets * groups if columns else sets
