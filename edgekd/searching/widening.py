"""A recipe's own stages, with ranges around the numbers that decide size, speed and accuracy."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

Table = dict[str, Any]


@dataclass(frozen=True)
class Opening:
    """A value that becomes a range: it stands under `key` in `table`, at `place` in the recipe."""

    table: Table
    key: str
    place: str
    range: Table


def widened(stages: list[Table]) -> tuple[list[Table], dict[str, Any]]:
    """Stages with ranges where they have values, and the values that stood there, by place."""
    made = copy.deepcopy(stages)
    before: dict[str, Any] = {}
    for number, stage in enumerate(made, 1):
        for opening in list(_openings(stage, f"stages.{number}")):
            before[opening.place] = opening.table[opening.key]
            opening.table[opening.key] = opening.range
    return made, before


def _openings(stage: Table, place: str) -> Iterator[Opening]:
    kind = stage.get("kind")
    if kind == "prune":
        yield from _shares(stage, place, {"amount": (0.05, 0.85), "budget": (0.1, 0.95)})
    if kind == "factorize":
        rank = stage.setdefault("rank", {"energy": 0.95})
        if isinstance(rank, dict):
            limits = {"energy": (0.75, 0.99), "budget": (0.1, 0.95)}
            yield from _shares(rank, f"{place}.rank", limits)
    if kind == "quantize" and stage.get("method", "calibrate") != "calibrate":
        methods = {"one_of": [stage["method"], "calibrate"]}
        yield Opening(stage, "method", f"{place}.method", methods)
    for number, loss in enumerate(stage.get("losses") or (), 1):
        if isinstance(loss, dict):
            yield from _of_loss(loss, f"{place}.losses.{number}")


def _shares(table: Table, place: str, limits: dict[str, tuple[float, float]]) -> Iterator[Opening]:
    """Numbers that become a range from one limit to another, or as far as they lie beyond it."""
    for key, (least, most) in limits.items():
        value = table.get(key)
        if _is_number(value):
            ends = {"from": min(least, value), "to": max(most, value)}
            yield Opening(table, key, f"{place}.{key}", ends)


def _of_loss(loss: Table, place: str) -> Iterator[Opening]:
    """The ranges of a loss: its weight and temperature, unless they are schedules."""
    weight, temperature = loss.get("weight"), loss.get("temperature")
    if _is_number(weight) and weight > 0:
        ends = {"from": weight / 3, "to": weight * 1.5}
        yield Opening(loss, "weight", f"{place}.weight", ends)
    if _is_number(temperature) and temperature > 0:
        low, high = min(temperature, max(1.0, temperature / 3)), max(2.0, temperature * 3)
        span = {"from": low, "to": high, "log": True}
        yield Opening(loss, "temperature", f"{place}.temperature", span)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
