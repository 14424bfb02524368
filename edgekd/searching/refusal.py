"""Budgets that a plan already breaks: the files it compiled before any training are too large, or
too slow where they will run.

Training changes numbers, not the network's structure, so a file is as large afterwards as in the
plan, apart from a few bytes, and about as fast. Where a stage chooses how much it takes from each
layer only when it runs, the structure may differ; then a budget has to be broken by more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgekd.measure.budgets import budget_named, format_budget
from edgekd.run.plan import Plan, PlannedTarget
from edgekd.run.plan.planned import ExpectedFile
from edgekd.searching.judging import Limits
from edgekd.searching.untrained import UntrainedCosts
from edgekd.values.backend_lookup import kind_of

SAME_STRUCTURE = 1.02
OTHER_STRUCTURE = 1.5
"""How many times its limit an expected value has to be to break it for certain."""


class Costs(Protocol):
    """What is known before training of what files cost where they will run."""

    def least(self, target: str, file: ExpectedFile, budget: str, at_first: float) -> float | None:
        """What the trained file will cost at least, in the budget's unit; None if nothing tells.
        `at_first` is by which factor it may be cheaper, as long as nothing else tells that."""

    def text(self, target: str, file: ExpectedFile, budget: str, least: str) -> str:
        """How a refusal says what a file takes at least."""


NOT_RUN = UntrainedCosts()
"""No file was run before its training."""


@dataclass(frozen=True)
class Refusal:
    """Why a trial need not be trained: `excesses` has the budgets of each target that it breaks,
    and by which share of the limit."""

    message: str
    where: str
    excesses: dict[str, dict[str, float]]


def refusal_of(
    plan: Plan, limits: Limits, costs: Costs = NOT_RUN, where: str = "plan"
) -> Refusal | None:
    """The refusal of a plan, or None if its budgets may hold: every file of a target has to break
    one, since any of them may be deployed. `costs` has what the files cost, which was learned at
    `where`."""
    slack = OTHER_STRUCTURE if _chooses_late(plan) else SAME_STRUCTURE
    lines, broken = [], {}
    for planned in plan.targets:
        name = planned.target.name
        budgets = _least_broken(planned, limits[name], slack, costs)
        if budgets:
            broken[name] = {budget: excess for budget, (excess, _) in budgets.items()}
            lines += [f"{name}: {line}" for _, line in budgets.values()]
    if not broken:
        return None
    return Refusal("; ".join(lines), where, broken)


def _least_broken(
    planned: PlannedTarget, limits: Mapping[str, float], slack: float, costs: Costs
) -> dict[str, tuple[float, str]]:
    """The budgets that every file breaks, as the file breaks them that does so least."""
    name = planned.target.name
    by_file = [
        {**_too_slow(name, file, limits, slack, costs), **_broken(file, limits, slack)}
        for file in run_files(planned)
    ]
    if not by_file or not all(by_file):
        return {}
    return min(by_file, key=lambda broken: sum(excess for excess, _ in broken.values()))


def run_files(planned: PlannedTarget) -> list[ExpectedFile]:
    """The files of a target that a runtime runs as they are, not those that are only stored."""
    return [file for file in planned.expected if not _is_stored(file)]


def _is_stored(file: ExpectedFile) -> bool:
    kind = kind_of(file.format)
    return kind is not None and bool(kind.not_run)


def _broken(
    file: ExpectedFile, limits: Mapping[str, float], slack: float
) -> dict[str, tuple[float, str]]:
    broken = {}
    for name, limit in limits.items():
        value = _expected(file, name)
        if value is not None and value > slack * limit:
            unit = _unit(name)
            taken = f"the {file.format} file takes {value:.4g} {unit}"
            line = f"{taken}, {format_budget(name, limit)}"
            broken[name] = (value / limit - 1.0, line)
    return broken


def _too_slow(
    target: str,
    file: ExpectedFile,
    limits: Mapping[str, float],
    slack: float,
    costs: Costs,
) -> dict[str, tuple[float, str]]:
    """The budgets that the file breaks by what it costs where it will run."""
    broken = {}
    for name, limit in limits.items():
        least = costs.least(target, file, name, slack)
        if least is not None and least > limit:
            words = costs.text(target, file, name, f"{least:.4g} {_unit(name)}")
            taken = f"the {file.format} file {words}"
            broken[name] = (least / limit - 1.0, f"{taken}, {format_budget(name, limit)}")
    return broken


def _unit(budget: str) -> str:
    """The unit in a budget's name; what is only counted is named whole."""
    return budget.partition("_")[2] or budget


def _expected(file: ExpectedFile, budget: str) -> float | None:
    """What a file takes at least, in the budget's unit; None if nothing tells."""
    family = budget.partition("_")[0]
    known: Mapping[str, Any] = {"size": file.bytes, "memory": file.planned_bytes}
    value = known.get(family)
    return None if value is None else value / budget_named(budget).factor


def _chooses_late(plan: Plan) -> bool:
    """Whether a stage decides only when it runs how much it takes from each layer."""
    return any(_by_layer(table) for table in plan.request.recipe.stages)


def _by_layer(table: Mapping[str, Any]) -> bool:
    if table.get("kind") == "prune":
        uniform = table.get("allocation", "uniform") == "uniform"
        return not uniform or table.get("granularity") == "blocks"
    if table.get("kind") == "factorize":
        rank = table.get("rank", {})
        return not isinstance(rank, dict) or "rank" not in rank
    return table.get("kind") == "shrink" or bool(table.get("mixed"))
