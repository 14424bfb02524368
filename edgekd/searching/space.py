"""The space of a search: a recipe with ranges, every end of which the recipe's schema accepts."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgekd.errors import Collector, EdgekdError, InputError, raise_all
from edgekd.run.plan.checks import check_order, typed_stage
from edgekd.run.request import RecipeParts
from edgekd.values.ranges import Choose, Dimension, OneOf, Range, Span, find_ranges, without_ranges
from edgekd.values.recipe import Recipe, recipe_from

Scalar = str | int | float | bool
Parameters = dict[str, Scalar]
"""A trial's values by place: numbers, and the labels of choices."""


@dataclass(frozen=True)
class SearchSpace:
    """A recipe with ranges. `family` names the default space, "" if the ranges are the user's.
    `first` are the values that stood where the default space has ranges."""

    parts: RecipeParts
    dimensions: tuple[Dimension, ...]
    family: str = ""
    first: Mapping[str, Any] = field(default_factory=dict)

    def table(self, choose: Choose) -> dict[str, Any]:
        """The recipe's table with the chosen values, not checked."""
        table: dict[str, Any] = without_ranges(self.parts.table, choose)
        return table

    def recipe(self, choose: Choose) -> Recipe:
        """The recipe with the chosen values. Raises `InputError` if it refuses them together."""
        table = self.table(choose)
        return recipe_from(table, self.parts.folder, self.parts.where, self.parts.objects)

    def recipe_of(self, parameters: Mapping[str, Scalar]) -> Recipe:
        """The recipe of a trial's values."""
        return self.recipe(lambda place, among: position_of(parameters[place], among))

    @property
    def size(self) -> int | None:
        """How many different recipes there are; None if a range is continuous."""
        count = 1
        for dimension in self.dimensions:
            among = dimension.range
            if isinstance(among, OneOf):
                count *= len(among.values)
            elif among.whole or among.step:
                count *= int((among.high - among.low) / (among.step or 1)) + 1
            else:
                return None
        return count


def position_of(value: Scalar, among: Range) -> Any:
    """What `without_ranges` wants to be given for a trial's value."""
    return among.labels.index(value) if isinstance(among, OneOf) else value


def space_of(parts: RecipeParts) -> SearchSpace:
    """The ranges of a recipe. Raises every fault in them at once."""
    return SearchSpace(parts, tuple(find_ranges(parts.table, parts.where)))


def with_stages(
    space: SearchSpace, stages: list[dict[str, Any]], family: str, first: Mapping[str, Any]
) -> SearchSpace:
    """The same recipe with other stages."""
    parts = replace(space.parts, table={**space.parts.table, "stages": stages})
    return replace(space_of(parts), family=family, first=first)


def check_space(space: SearchSpace) -> None:
    """Try each end of each range and each choice in the recipe's own schema, the other ranges at
    their first values. Raises every fault at once, with the range it comes from."""
    faults: list[EdgekdError] = []
    seen: set[str] = set()
    for dimension in space.dimensions:
        for value in _edges(dimension.range):
            for fault in _faults_with(space, dimension, value):
                if fault.message in seen:
                    continue
                seen.add(fault.message)
                faults.append(_with_range(fault, dimension, value))
    raise_all(faults)


def _edges(among: Range) -> list[Any]:
    return list(range(len(among.values))) if isinstance(among, OneOf) else [among.low, among.high]


def _faults_with(space: SearchSpace, dimension: Dimension, value: Any) -> list[EdgekdError]:
    def choose(place: str, among: Range) -> Any:
        if place == dimension.place:
            return value
        inside = re.match(re.escape(place) + r"\((\d+)\)", dimension.place)
        if inside:
            return int(inside[1]) - 1
        return 0 if isinstance(among, OneOf) else among.low

    collect = Collector(InputError)
    recipe = collect.attempt(space.recipe, choose)
    if recipe is not None:
        numbered = list(enumerate(recipe.stages, 1))
        stages = [collect.attempt(typed_stage, number, table) for number, table in numbered]
        check_order([stage for stage in stages if stage], collect)
    return collect.faults


def _with_range(fault: EdgekdError, dimension: Dimension, value: Any) -> EdgekdError:
    among = dimension.range
    shown = among.labels[value] if isinstance(among, OneOf) else value
    source = f"the range at {dimension.place} includes {shown!s:.80}"
    hint = f"{source}; {fault.hint}" if fault.hint else source
    return InputError(fault.message, where=fault.where, allowed=fault.allowed, hint=hint)


def describe(dimension: Dimension) -> str:
    """A range in words: `stages.2.amount: 0.1 to 0.7`."""
    among = dimension.range
    text = str(among) if isinstance(among, Span) else ", ".join(map(short_label, among.labels))
    return f"{dimension.place}: {text}"


def short_label(label: Scalar) -> str:
    """A choice's label for reading: of a stage only its kind and what tells it from others."""
    text = str(label)
    if text == "{}":
        return "(left out)"
    if not text.startswith('{"kind"'):
        return text
    stage = json.loads(text)
    named = [stage.get(key) for key in ("kind", "granularity", "dtype", "method")]
    return " ".join(name for name in named if isinstance(name, str))


def short_value(value: Scalar) -> str:
    """A trial's value for reading."""
    return f"{value:.4g}" if isinstance(value, float) else short_label(value)
