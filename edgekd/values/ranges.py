"""Ranges in a recipe: where `edgekd search` chooses a value, and how they are written.

`{ from = 0.1, to = 0.7 }` is a span of numbers, with `step` in steps from its first end and with
`log` on a logarithmic scale; two whole ends give whole numbers. `{ one_of = ["kl", "dkd"] }` is a
choice of any values, among them tables and lists that hold ranges themselves. An empty table
among the choices for an element of a list leaves the element out: a stage that may be skipped.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.errors import Collector, InputError, nearest, raise_all

SPAN = ("from", "to", "step", "log")
CHOICE = ("one_of",)
FORM = "{ from = 0.1, to = 0.7 }, with 'step' or 'log = true', or { one_of = [...] }"


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, both included; `whole` are integers."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{step}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class OneOf:
    """Values of which one is taken. `labels` name them in a table; no two are alike."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[str | int | float | bool, ...]:
        """Plain values as they are, tables and lists as JSON."""
        return tuple(
            value if isinstance(value, str | int | float) else json.dumps(value, default=str)
            for value in self.values
        )

    def __str__(self) -> str:
        return ", ".join(str(label) for label in self.labels)


Range = Span | OneOf

Choose = Callable[[str, Range], Any]
"""Chooses at a place: a number for a `Span`, the position of a value for a `OneOf`."""


@dataclass(frozen=True)
class Dimension:
    """A range and its place in the recipe: `stages.2.amount`. What stands inside the third of
    several choices has `(3)` in its place, and exists only where that one is taken."""

    place: str
    range: Range


def is_range(value: Any) -> bool:
    """Whether a value is written as a range, right or wrong: it has the keys of one, and `from`
    and `to` hold no tables."""
    if not isinstance(value, Mapping) or not value:
        return False
    if "one_of" in value:
        return True
    ends = [value[key] for key in ("from", "to") if key in value]
    return bool(ends) and not any(isinstance(end, Mapping | list) for end in ends)


def range_of(table: Mapping[str, Any], where: str) -> Range:
    """The range that a table describes. Raises `InputError` for anything wrong in it."""
    keys = CHOICE if "one_of" in table else SPAN
    for key in table:
        if key not in keys:
            hint = nearest(str(key), keys)
            raise InputError(
                f"unknown key '{key}' of a range", where=where, allowed=", ".join(keys), hint=hint
            )
    return _choice(table["one_of"], where) if "one_of" in table else _span(table, where)


def _choice(values: Any, where: str) -> OneOf:
    if not isinstance(values, list | tuple) or not values:
        raise InputError(
            f"'one_of' needs a list of values, found {values!r:.60}", where=where, allowed=FORM
        )
    choice = OneOf(tuple(values))
    for label in choice.labels:
        if choice.labels.count(label) > 1:
            raise InputError(f"'one_of' has {label} twice", where=where)
    return choice


def _span(table: Mapping[str, Any], where: str) -> Span:
    for key in ("from", "to"):
        if key not in table:
            raise InputError(f"a range without '{key}'", where=where, allowed=FORM)
    for key in ("from", "to", "step"):
        value = table.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            hint = "choose between values with one_of" if isinstance(value, str) else ""
            raise InputError(
                f"'{key}' needs a number, found {value!r}", where=where, allowed=FORM, hint=hint
            )
    if not isinstance(table.get("log", False), bool):
        raise InputError(f"'log' needs true or false, found {table['log']!r}", where=where)
    low, high, step = table["from"], table["to"], table.get("step")
    whole = all(isinstance(end, int) for end in (low, high)) and isinstance(step or 1, int)
    span = Span(low, high, step, table.get("log", False), whole)
    problem, hint = _impossible(span)
    if problem:
        raise InputError(problem, where=where, hint=hint)
    return span


def _impossible(span: Span) -> tuple[str, str]:
    """What is wrong with a span of numbers, and a hint."""
    low, high, step = span.low, span.high, span.step
    if low > high:
        hint = f"write {{ from = {high}, to = {low} }}"
        return f"the ends of the range are reversed: from {low} to {high}", hint
    if low == high:
        return f"a range with one value, {low}", f"write {low} instead of the range"
    if step is not None and not 0 < step <= high - low:
        return f"a step of {step} in a range from {low} to {high}", "a step is above 0 and fits"
    if span.log and low <= 0:
        return f"a logarithmic range from {low}", "start above 0, or leave 'log' out"
    if span.log and step is not None:
        return "a range with both 'step' and 'log'", "keep one of them, or list values in one_of"
    return "", ""


def find_ranges(tree: Any, where: str = "", place: str = "") -> list[Dimension]:
    """Every range in a tree of tables and lists, in order, those inside other ranges' choices
    too. Raises every fault at once, with `where` before the place."""
    collect = Collector(InputError)
    found = list(_ranges_in(tree, f"{where}: " if where else "", place, collect))
    raise_all(collect.faults)
    return found


def _ranges_in(tree: Any, where: str, place: str, collect: Collector) -> Iterator[Dimension]:
    if is_range(tree):
        parsed = collect.attempt(range_of, tree, f"{where}{place}")
        if parsed is None:
            return
        yield Dimension(place, parsed)
        inner = enumerate(parsed.values, 1) if isinstance(parsed, OneOf) else ()
        for number, value in inner:
            yield from _ranges_in(value, where, f"{place}({number})", collect)
        return
    for key, value in _children(tree):
        yield from _ranges_in(value, where, f"{place}.{key}" if place else str(key), collect)


def _children(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, Mapping):
        yield from tree.items()
    elif isinstance(tree, list | tuple):
        yield from enumerate(tree, 1)


def without_ranges(tree: Any, choose: Choose, place: str = "") -> Any:
    """The tree with a value for each range, which `choose` is asked for in order."""
    if is_range(tree):
        parsed = range_of(tree, place)
        chosen = choose(place, parsed)
        if isinstance(parsed, Span):
            return chosen
        return without_ranges(parsed.values[chosen], choose, f"{place}({chosen + 1})")
    inner = [
        (key, value, without_ranges(value, choose, f"{place}.{key}" if place else str(key)))
        for key, value in _children(tree)
    ]
    if isinstance(tree, Mapping):
        return {key: resolved for key, _, resolved in inner}
    if isinstance(tree, list | tuple):
        return [
            resolved for _, value, resolved in inner if not (is_range(value) and resolved == {})
        ]
    return tree


def refuse_ranges(table: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` if a recipe that is to run has a range where it needs a value."""
    found = find_ranges(table, where)
    if found:
        places = ", ".join(one.place for one in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise InputError(
            f"a range where a run needs one value: {places}{more}",
            where=where,
            hint="'edgekd search' chooses the values; or write one value for each",
        )
