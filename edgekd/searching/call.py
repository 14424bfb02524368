"""The Python API of a search: what `edgekd search` does, as a function."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from edgekd.installed import switch_telemetry_off
from edgekd.run.progress import progress_bars
from edgekd.run.request import Asked, Model, Options, TargetName
from edgekd.searching.request import SearchOptions, make_search
from edgekd.searching.result import SearchResult
from edgekd.searching.run import run_search
from edgekd.stages import Stage


def search(
    model: Model | None,
    *,
    target: TargetName | Sequence[TargetName],
    data: Any = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    budgets: Mapping[str, float] | Iterable[str] = {},
    out: str | Path = "searches/latest",
    progress: bool = True,
    limits: SearchOptions | None = None,
    **options: Unpack[Options],
) -> SearchResult:
    """Search for the best network that meets budgets: `compress` run for many recipes.

    Args:
        model: as in `compress`; also a recipe with ranges where it would have values.
        target: a target's name, its .toml file or its profile; or several.
        data: as in `compress`.
        stages: tables of stages with ranges: `{"kind": "prune", "amount": {"from": 0.1, "to":
            0.7}}`, `{"one_of": [...]}`. Without any range, the values of the recipe's own stages
            are varied; without stages, those of the default space of the network's family.
        budgets: limits by metric, as in `{"latency_ms": 5, "accuracy_drop": 1.0}`.
        out: the search's folder. A second call goes on with what is there, also where budgets
            have moved.
        progress: whether to draw progress bars in a terminal or a notebook.
        limits: how long to search and how: `edgekd.SearchOptions(trials=20)`, or `hours=2`,
            `storage`, `space`, `sampler`, `early_stopping="halving"`, `warm_start`.
        **options: as in `compress`. `quick` measures the chosen points briefly too.

    Returns:
        The result: `targets` with their fronts and chosen points, `verdict`, `recipe()`.

    Raises:
        InputError: something that was given is wrong, or every trial is refused for one reason.
        ToolError: every trial fails for one reason, or the storage can't be used.
    """
    switch_telemetry_off()
    asked: Asked = {
        **options, "target": target, "data": data, "stages": stages, "budgets": budgets, "out": out,
    }  # fmt: skip
    made = make_search(model, asked, limits or SearchOptions())
    with progress_bars(progress) as shown:
        return run_search(made, shown, silent_line, options.get("quick", False))


def silent_line(line: str) -> None:
    """Say nothing about a trial."""
