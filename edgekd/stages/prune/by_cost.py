"""How many units each layer keeps so that the outputs change least at a given cost.

Each group's units are removed alone, at several shares, and the error of the network's outputs is
measured. What a removal saves depends on the layers before and behind: a convolution's
multiply-accumulates are a product over both its sides. So the program is solved for the savings
around the last solution, which starts as the same share everywhere, until it no longer changes.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from edgekd.data.samples import Samples
from edgekd.network.cost import layer_costs, left_of
from edgekd.network.evaluation import predict
from edgekd.stages._knapsack import knapsack
from edgekd.stages.prune.allocation import Drops, Pool, uniform
from edgekd.stages.prune.groups import Group
from edgekd.values.tree import Tree, leaves

Measure = Literal["macs", "parameters"]
"""What a budget is a share of."""


def unit_of(measure: Measure) -> str:
    """What a budget counts, in a sentence."""
    return "MACs" if measure == "macs" else measure


MOST_OPTIONS = 24
"""How many counts of a group are options, besides all of its units."""

ROUNDS = 8
BISECTIONS = 20

Kept = Mapping[str, int]


@dataclass(frozen=True)
class Part:
    """One parameter's share of the cost: `sides` has, for each of its dimensions that can lose
    something, which share of the dimension goes with all units of each group."""

    cost: float
    sides: tuple[Mapping[str, float], ...]

    def left(self, gone: Mapping[str, float]) -> float:
        """What is left of the cost when these shares of groups are gone."""
        return left_of(self.cost, self.sides, gone)


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs, by how many units are kept of its groups, which had `units`."""

    units: Mapping[str, int]
    parts: tuple[Part, ...]

    def total(self, kept: Kept) -> float:
        """The whole cost."""
        return sum(part.left(self._gone(kept)) for part in self.parts)

    def changes(self, kept: Kept, name: str, options: Sequence[int]) -> list[float]:
        """What changes if one group keeps another number of its units."""
        own = [part for part in self.parts if any(name in side for side in part.sides)]
        gone = self._gone(kept)
        before = sum(part.left(gone) for part in own)
        changes = []
        for option in options:
            gone[name] = 1.0 - option / self.units[name]
            changes.append(sum(part.left(gone) for part in own) - before)
        return changes

    def _gone(self, kept: Kept) -> dict[str, float]:
        return {name: 1.0 - kept.get(name, units) / units for name, units in self.units.items()}


def network_cost(
    module: nn.Module, example: Tree, groups: Sequence[Group], measure: Measure
) -> NetworkCost:
    """What the network costs with fewer units. Multiply-accumulates of a layer are those of its
    matrices; products without parameters count as they are."""
    sides: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    shapes = {name: value.shape for name, value in module.named_parameters()}
    for group in groups:
        for part in group.slices:
            if part.parameter not in shapes:  # a buffer, such as a norm's running mean
                continue
            size = shapes[part.parameter][part.dim]
            known = sides[part.parameter][part.dim]
            known[group.name] = known.get(group.name, 0.0) + len(part.indices) / size
    parts = tuple(
        Part(cost, tuple(sides[name].values()))
        for name, cost in _costs(module, example, measure).items()
    )
    return NetworkCost({group.name: len(group.units) for group in groups}, parts)


def _costs(module: nn.Module, example: Tree, measure: Measure) -> dict[str, float]:
    """Each parameter's share of the cost."""
    sizes = {name: float(value.numel()) for name, value in module.named_parameters()}
    if measure == "parameters":
        return sizes
    costs: dict[str, float] = {}
    for layer in layer_costs(module, example):
        own = dict(module.get_submodule(layer.name).named_parameters(recurse=False))
        kernels = {name: value.numel() for name, value in own.items() if value.dim() > 1}
        whole = sum(kernels.values())
        if not whole:
            costs[f"{layer.name} "] = float(layer.macs)  # no parameter's name: nothing changes it
        for name, size in kernels.items():
            full = f"{layer.name}.{name}" if layer.name else name
            costs[full] = layer.macs * size / whole
    return costs


def output_error(module: nn.Module, samples: Samples) -> Callable[[nn.Module], float]:
    """A function that gives the squared error of another network's outputs on the samples, as a
    share of the outputs' own squares."""
    expected = [leaf.double() for leaf in leaves(predict(module, samples))]
    energy = sum(float(leaf.square().sum()) for leaf in expected) or 1.0

    def error(other: nn.Module) -> float:
        found = leaves(predict(other, samples))
        pairs = zip(found, expected, strict=True)
        return sum(float((a.double() - b).square().sum()) for a, b in pairs) / energy

    return error


def by_cost(
    pools: Sequence[Pool], errors: Drops, cost: NetworkCost, limit: float
) -> dict[str, int]:
    """The units that each pool keeps: the least sum of errors, each measured alone, at a cost of at
    most `limit`. If that is out of reach, the fewest that may stay."""
    options = {pool.name: options_of(pool) for pool in pools}
    damages = {pool.name: damages_of(pool, options[pool.name], errors[pool.name]) for pool in pools}
    best = _uniform_within(pools, cost, limit)
    if cost.total(best) > limit or all(best[pool.name] == pool.left for pool in pools):
        return best
    current, allowed, least = best, limit, _interpolated(best, pools, errors)
    for _ in range(ROUNDS):
        changes = [cost.changes(current, name, options[name]) for name in options]
        chosen = knapsack(list(damages.values()), changes, allowed - cost.total(current))
        if chosen is None:
            break
        tried = {name: options[name][place] for name, place in zip(options, chosen, strict=True)}
        real, damage = cost.total(tried), _interpolated(tried, pools, errors)
        if real <= limit and damage < least:
            best, least = tried, damage
        if real <= limit and tried == current:
            break
        allowed = limit if real <= limit else allowed * limit / real
        current = tried
    return best


def _uniform_within(pools: Sequence[Pool], cost: NetworkCost, limit: float) -> dict[str, int]:
    """The same share everywhere, as little as the limit asks for."""
    whole = {pool.name: pool.left for pool in pools}
    if cost.total(whole) <= limit:
        return whole
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = cost.total(uniform(pools, middle)) <= limit
        low, high = (low, middle) if fits else (middle, high)
    return uniform(pools, high)


def options_of(pool: Pool) -> list[int]:
    """The counts of units that a pool may keep, the last all of them."""
    counts = sorted({pool.floor, *range(pool.floor, pool.left, pool.step)})
    places = np.unique(np.linspace(0, len(counts) - 1, min(len(counts), MOST_OPTIONS)).round())
    return [*(counts[int(place)] for place in places if counts[int(place)] < pool.left), pool.left]


def damages_of(
    pool: Pool, options: Sequence[int], measured: Sequence[tuple[float, float]]
) -> list[float]:
    """The error of each count, linear between those that were measured and never falling."""
    shares = [0.0, *(share for share, _ in measured)]
    errors = np.maximum.accumulate([0.0, *(max(0.0, error) for _, error in measured)])
    gone = [1.0 - option / pool.left for option in options]
    return [float(value) for value in np.interp(gone, shares, errors)]


def _interpolated(kept: Kept, pools: Sequence[Pool], errors: Drops) -> float:
    return sum(damages_of(pool, [kept[pool.name]], errors[pool.name])[0] for pool in pools)
