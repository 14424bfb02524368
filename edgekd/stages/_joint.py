"""Channels, ranks and types of weights chosen together: what loses least within a size.

A layer's weights take the product of its channels on both sides, of what its factors are of it, and
of its bits. So the program is solved for the savings around the last solution, from several first
ones, until it no longer changes; the errors of the network's outputs, each measured alone, are
added up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgekd.network.cost import left_of
from edgekd.stages._knapsack import knapsack

ROUNDS = 12

Kept = Mapping[str, int]
"""How many units each group of channels keeps."""


@dataclass(frozen=True)
class Width:
    """A group of channels of which some units may go: the counts that may stay, the last all of
    them, and the outputs' error with each."""

    counts: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def units(self) -> int:
        """All units."""
        return self.counts[-1]


@dataclass(frozen=True)
class Way:
    """One way to store a layer: `share` is how many values are left of its weights, `bytes` what a
    value takes with its part of the scales, `error` that of the outputs. `what` is the split and
    the type that it stands for."""

    share: float
    bytes: float
    error: float
    what: Any = None

    @property
    def factor(self) -> float:
        """The bytes for each value of the whole layer."""
        return self.share * self.bytes


@dataclass(frozen=True)
class Layer:
    """A layer's `values` before anything is removed, the ways to store it, and for each of its
    sides the share that goes with all units of each group."""

    values: float
    ways: tuple[Way, ...]
    sides: tuple[Mapping[str, float], ...] = ()

    def left(self, gone: Mapping[str, float]) -> float:
        """How many values are left when these shares of groups are gone."""
        return left_of(self.values, self.sides, gone)


@dataclass(frozen=True)
class Choice:
    """What each group keeps, and the place of each layer's way."""

    kept: Mapping[str, int]
    ways: Mapping[str, int]


@dataclass(frozen=True)
class Parts:
    """Everything that may be chosen of a network; `rest` bytes stay whatever is chosen."""

    widths: Mapping[str, Width]
    layers: Mapping[str, Layer]
    rest: float = 0.0
    _own: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def bytes(self, choice: Choice) -> float:
        """What the network takes."""
        gone = self._gone(choice.kept)
        return self.rest + sum(
            layer.left(gone) * layer.ways[choice.ways[name]].factor
            for name, layer in self.layers.items()
        )

    def error(self, choice: Choice) -> float:
        """The errors added up."""
        cut = sum(
            width.errors[width.counts.index(choice.kept[name])]
            for name, width in self.widths.items()
        )
        return cut + sum(layer.ways[choice.ways[name]].error for name, layer in self.layers.items())

    def _gone(self, kept: Kept) -> dict[str, float]:
        return {name: 1.0 - kept[name] / width.units for name, width in self.widths.items()}

    def width_changes(self, choice: Choice, name: str) -> list[float]:
        """What the size changes by with each other count of one group."""
        own = self._layers_of(name)
        gone = self._gone(choice.kept)
        factors = {each: self.layers[each].ways[choice.ways[each]].factor for each in own}
        before = sum(self.layers[each].left(gone) * factors[each] for each in own)
        changes = []
        for count in self.widths[name].counts:
            gone[name] = 1.0 - count / self.widths[name].units
            after = sum(self.layers[each].left(gone) * factors[each] for each in own)
            changes.append(after - before)
        return changes

    def way_changes(self, choice: Choice, name: str) -> list[float]:
        """What the size changes by with each other way of one layer."""
        layer = self.layers[name]
        values = layer.left(self._gone(choice.kept))
        now = layer.ways[choice.ways[name]].factor
        return [values * (way.factor - now) for way in layer.ways]

    def _layers_of(self, group: str) -> list[str]:
        if group not in self._own:
            self._own[group] = [
                name
                for name, layer in self.layers.items()
                if any(group in side for side in layer.sides)
            ]
        return self._own[group]


def least_bytes(parts: Parts) -> Choice:
    """The choice that takes least."""
    kept = {name: width.counts[0] for name, width in parts.widths.items()}
    ways = {
        name: min(range(len(layer.ways)), key=lambda place, own=layer: own.ways[place].factor)  # type: ignore[misc]
        for name, layer in parts.layers.items()
    }
    return Choice(kept, ways)


def restricted(parts: Parts, channels: bool, allowed: Callable[[Way], bool]) -> Parts:
    """The same network where only some ways may be chosen, and channels only if so."""
    widths = {
        name: width if channels else Width(width.counts[-1:], width.errors[-1:])
        for name, width in parts.widths.items()
    }
    layers = {
        name: replace(layer, ways=tuple(filter(allowed, layer.ways)))
        for name, layer in parts.layers.items()
    }
    return Parts(widths, layers, parts.rest)


def as_choice_of(parts: Parts, choice: Choice, of: Parts) -> Choice:
    """A choice among what was restricted, `of`, as one of all parts."""
    ways = {
        name: layer.ways.index(of.layers[name].ways[choice.ways[name]])
        for name, layer in parts.layers.items()
    }
    return replace(choice, ways=ways)


def best_choices(parts: Parts, limit: float, starts: Sequence[Choice]) -> list[Choice]:
    """The choices found that take at most `limit` bytes, the least sum of errors first: one from
    each start. Empty if nothing fits."""
    found: list[Choice] = []
    for start in (*starts, least_bytes(parts)):
        best = _from(parts, limit, start)
        if best is not None and best not in found:
            found.append(best)
    return sorted(found, key=parts.error)


def _from(parts: Parts, limit: float, start: Choice) -> Choice | None:
    best = start if parts.bytes(start) <= limit else None
    current, allowed = start, limit
    widths, layers = list(parts.widths), list(parts.layers)
    damages = [
        *(parts.widths[name].errors for name in widths),
        *([way.error for way in parts.layers[name].ways] for name in layers),
    ]
    for _ in range(ROUNDS):
        changes = [
            *(parts.width_changes(current, name) for name in widths),
            *(parts.way_changes(current, name) for name in layers),
        ]
        places = knapsack(damages, changes, allowed - parts.bytes(current))
        if places is None:
            break
        of_widths, of_layers = places[: len(widths)], places[len(widths) :]
        tried = Choice(
            {
                name: parts.widths[name].counts[place]
                for name, place in zip(widths, of_widths, strict=True)
            },
            dict(zip(layers, of_layers, strict=True)),
        )
        real = parts.bytes(tried)
        if real <= limit and (best is None or parts.error(tried) < parts.error(best)):
            best = tried
        if tried == current:
            break
        allowed = limit if real <= limit else allowed * limit / real
        current = tried
    return best
