"""Groups of coupled channels as pruning sees them: units, and the layers that they run through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """One side of one layer: its channel `indices[k]` goes with the group's channel `roots[k]`.

    `parameter` is the layer's own name for the weight.
    """

    layer: str
    axis: Axis
    indices: tuple[int, ...]
    roots: tuple[int, ...]
    parameter: str = "weight"


@dataclass(frozen=True)
class Slice:
    """What goes out of one dimension of one parameter: `indices[k]` with the unit `units[k]`."""

    parameter: str
    dim: int
    indices: tuple[int, ...]
    units: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that live and die together, under the name of the layer that makes them.

    `units` are what can be removed: single channels, one channel of each part that is divided in
    step, or a head. `reason` says why nothing can be removed, where that is so; `output` marks the
    channels of the network's own output, which always stay.
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
        """The layers that make these channels."""
        return {member.layer for member in self.members if member.axis == "out"}

    @property
    def can_go(self) -> bool:
        """Whether some of it can go as far as is known."""
        return not (self.output or self.reason) and len(self.units) > 1

    def step(self, multiple: int) -> int:
        """How many units make up a multiple of that many channels in every layer."""
        counts = {len(unit) for unit in self.units}
        for member in self.members:
            counts.add(max(1, len(member.indices) // max(1, len(self.units))))
        return int(np.lcm.reduce([multiple // int(np.gcd(multiple, count)) for count in counts]))


@dataclass(frozen=True)
class Structure:
    """What a trace found: the set of every atom, what must stay, and where it had to choose."""

    ranges: Mapping[tuple[str, int], Range]
    roots: Numbers
    frozen: Mapping[int, str]
    outputs: frozenset[int]
    makers: frozenset[tuple[str, int]]
    readers: frozenset[tuple[str, int]]
    sites: tuple[Site, ...]
    summed: tuple[Layout, ...]

    def sets(self, key: tuple[str, int]) -> Numbers:
        """(size,) the set of each index of one dimension of one parameter."""
        return self.roots[self.ranges[key].atoms]


def structure_of(trace: Trace) -> Structure:
    """The trace's findings, once the run is over."""
    atoms: Atoms = trace.atoms
    return Structure(
        dict(atoms.ranges),
        atoms.roots(),
        atoms.frozen(),
        frozenset(atoms.of_outputs()),
        frozenset(trace.makers),
        frozenset(trace.readers),
        tuple(trace.sites),
        tuple(trace.summed),
    )


Key = tuple[str, int]


def groups_of(module: nn.Module, structure: Structure) -> list[Group]:
    """The groups, in the order of the network: layers that share channels are in one."""
    order = {name: number for number, (name, _) in enumerate(module.named_modules())}
    makers = [key for key in structure.makers if _makes(module, key)]
    makers.sort(key=lambda key: order[_layer(key)])
    clusters: list[tuple[list[Key], set[int]]] = []
    for key in makers:
        keys, sets = [key], set(structure.sets(key).tolist())
        apart = []
        for other in clusters:
            if other[1] & sets:
                keys, sets = other[0] + keys, sets | other[1]
            else:
                apart.append(other)
        clusters = [*apart, (keys, sets)]
    blocks = {f"{name}.value": name for name in attentions(module)}
    touched = _touched(structure, [sets for _, sets in clusters])
    groups = [
        _group(module, structure, keys, touched[number], blocks)
        for number, (keys, _) in enumerate(clusters)
    ]
    return sorted(groups, key=lambda group: order[group.name])


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


def _group(
    module: nn.Module,
    structure: Structure,
    keys: Sequence[Key],
    touched: Sequence[Key],
    blocks: Mapping[str, str],
) -> Group:
    sets = {each for key in keys for each in structure.sets(key).tolist()}
    free = {each for each in sets if each not in structure.frozen} - structure.outputs
    channels = _root_sets(module, structure, keys)
    units: dict[int, list[int]] = {}
    for number, each in enumerate(channels):
        if each in free:
            units.setdefault(each, []).append(number)
    numbers = {each: number for number, each in enumerate(units)}
    output = not units and bool(sets & structure.outputs)
    reasons = [structure.frozen[each] for each in sorted(sets) if each in structure.frozen]
    if any(_is_attention(module, key) for key in keys):
        reasons.insert(0, "nn.MultiheadAttention fixes its width and its heads")
        units, numbers = {}, {}
    members = _members(module, structure, touched, channels)
    name = _layer(_roots(module, structure, keys)[0])
    heads = {blocks[_layer(key)] for key in keys if _layer(key) in blocks}
    return Group(
        name=min(heads) if heads else name,
        channels=len(channels),
        units=tuple(map(tuple, units.values())),
        members=members,
        reason="" if units or output else (reasons or ["nothing of it can go"])[0],
        output=output,
        heads=bool(heads),
        slices=_slices(structure, touched, numbers),
        sets=tuple(sorted(sets)),
    )


def _is_attention(module: nn.Module, key: Key) -> bool:
    return isinstance(module.get_submodule(_layer(key)), nn.MultiheadAttention)


def _roots(module: nn.Module, structure: Structure, keys: Sequence[Key]) -> list[Key]:
    """The first layer that makes all the channels; or as many as are needed to have them all."""
    every = {each for key in keys for each in structure.sets(key).tolist()}
    whole = [key for key in keys if every == set(structure.sets(key).tolist())]
    plain = [
        key
        for key in whole
        if is_kernel(layer := module.get_submodule(_layer(key))) and group_count(layer) == 1
    ]
    if whole:
        return (plain or whole)[:1]
    roots: list[Key] = []
    seen: set[int] = set()
    for key in keys:
        sets = set(structure.sets(key).tolist())
        if not sets <= seen:
            roots.append(key)
            seen |= sets
    return roots


def _root_sets(module: nn.Module, structure: Structure, keys: Sequence[Key]) -> list[int]:
    """(channels,) the set of each of the group's channels."""
    channels: list[int] = []
    for key in _roots(module, structure, keys):
        found = structure.sets(key).tolist()
        layer = module.get_submodule(_layer(key))
        repeats = group_count(layer) if isinstance(layer, TRANSPOSED) else 1
        channels += found * repeats
    return channels


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
                if each in places:
                    turn = seen[each] = seen.get(each, -1) + 1
                    indices.append(index)
                    roots.append(places[each][turn % len(places[each])])
            if indices:
                members.append(Member(name, axis, tuple(indices), tuple(roots), parameter))
    return tuple(members)


def _sides(layer: Any) -> list[tuple[str, Axis, int]]:
    """Which dimension of which of a layer's weights makes channels, and which reads them."""
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
