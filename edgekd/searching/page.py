"""search.html: one self-contained page, in the style of a run's report."""

from dataclasses import dataclass
from pathlib import Path

from edgekd.measure.budgets import budget_named, format_budget
from edgekd.report import plots
from edgekd.report.html import Figure, front_line, rendered
from edgekd.searching.judging import QUALITY
from edgekd.searching.result import FrontPoint, SearchResult, TargetResult
from edgekd.searching.space import short_value
from edgekd.store import write_beside
from edgekd.values.backend_lookup import plot_mark

NAME, TEMPLATE = "search.html", "search.html.jinja"


@dataclass(frozen=True)
class Shown:
    """One target as the page shows it: a plot for each cost, and the cost's names."""

    result: TargetResult
    costs: tuple[str, ...]
    figures: tuple[Figure, ...]


def write_page(result: SearchResult, folder: Path) -> Path:
    """Write search.html and return its path. The same result gives the same bytes."""
    write_beside(folder / NAME, page_of(result))
    return folder / NAME


def page_of(result: SearchResult) -> str:
    """The whole page; all content is escaped."""
    return rendered(
        TEMPLATE,
        result=result,
        targets=[shown(target, result, number) for number, target in enumerate(result.targets)],
        format_budget=format_budget,
        states=states_text(result),
        short_value=short_value,
    )


def costs_of(target: TargetResult) -> tuple[str, ...]:
    """The budgets of a target that are costs."""
    return tuple(name for name in target.limits if name not in QUALITY)


def shown(target: TargetResult, result: SearchResult, number: int) -> Shown:
    """A target's plots: accuracy against each cost, and against the size if there is no other."""
    costs = costs_of(target)
    figures = [_figure(target, result, cost, f"front-{number}-{cost}") for cost in costs]
    if not costs:
        figures = [_figure(target, result, "size_kb", f"front-{number}-size")]
    return Shown(target, costs, tuple(figure for figure in figures if figure))


def _figure(target: TargetResult, result: SearchResult, cost: str, name: str) -> Figure | None:
    """Accuracy against one cost: the front's points by their numbers, and all other trials."""
    front = []
    for position, point in enumerate(target.front):
        value, accuracy = cost_of(point, cost), point.score
        if value and accuracy is not None:
            series = 2 if position == target.chosen else 1
            mark = plot_mark(point.format)
            front.append(plots.Point(value, accuracy, str(position + 1), series, mark))
    others = _others(target, result, cost)
    if not front:
        return None
    legend = {"front": 1}
    legend |= {"chosen": 2} if target.chosen is not None else {}
    legend |= {"other trials": -1} if others else {}
    line = front_line([(point.x, point.y) for point in front])
    title = f"{target.name}: accuracy against {cost}"
    svg = plots.scatter([*others, *front], legend, _axis(cost), name, title, [line])
    limit = target.limits.get(cost)
    budget = f" The budget is {format_budget(cost, limit)}." if limit is not None else ""
    which = "validation" if any(point.validation is not None for point in target.front) else "test"
    return Figure(svg, f"Accuracy on the {which} samples against {cost}.{budget}")


def _others(target: TargetResult, result: SearchResult, cost: str) -> list[plots.Point]:
    """The files of all trials that are not on the front."""
    known = {(point.trial, point.path) for point in target.front}
    factor, metrics = budget_named(cost).factor, budget_named(cost).measured_as
    points = []
    for trial in result.trials:
        for file in trial.files:
            beside = file.target != target.name or (trial.number, file.path) in known
            values = [
                measurement.value
                for measurement in file.measurements
                if measurement.metric in metrics and measurement.value
            ]
            if not beside and not file.only_size and values and file.score is not None:
                mark = plot_mark(file.format)
                points.append(plots.Point(values[0] / factor, file.score, "", -1, mark))
    return points


def cost_of(point: FrontPoint, cost: str) -> float | None:
    """A point's value of a cost, in the budget's unit."""
    if cost in point.costs:
        return point.costs[cost]
    return point.bytes / budget_named(cost).factor if cost.startswith("size") else None


def _axis(cost: str) -> str:
    family, _, unit = cost.partition("_")
    return f"{family} ({unit.replace('_', ' ')})"


def states_text(result: SearchResult) -> str:
    """How many trials ended how: "12 finished, 1 refused"."""
    return ", ".join(
        f"{count} {state}"
        for state in ("finished", "refused", "stopped", "failed")
        if (count := sum(trial.state == state for trial in result.trials))
    )
