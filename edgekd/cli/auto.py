"""`edgekd compress --auto`: the search that finds the recipe first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.run.request import Asked

FOLDER = "search"
"""The search's folder below that of the run."""


def check_auto(auto: bool, targets: int, trials: int | None, hours: float | None) -> None:
    """Refuse what fits only with `--auto`, and what does not fit with it."""
    if not auto and (trials is not None or hours is not None):
        raise InputError(
            "--trials and --hours are for a search",
            where="edgekd compress",
            hint="add --auto, or use 'edgekd search'",
        )
    if auto and targets > 1:
        raise InputError(
            f"--auto finds one recipe, and there are {targets} targets",
            where="--target",
            hint="'edgekd search' finds the best for each of several targets",
        )


def search_first(
    recipe: Path | None,
    asked: Asked,
    trials: int | None,
    hours: float | None,
    progress: bool,
    dry_run: bool,
) -> Path | None:
    """The recipe of the point that a search chooses, whose stages are finished already; None
    after a dry run. Prints the result and ends the command if no point meets the budgets."""
    from edgekd.run.progress import progress_bars
    from edgekd.searching.request import SearchOptions, make_search
    from edgekd.searching.run import run_search
    from edgekd.searching.text import exit_code, result_lines
    from edgekd.searching.trial import share_stages

    out = Path(asked["out"])
    made = make_search(recipe, {**asked, "out": out / FOLDER}, SearchOptions(trials, hours))
    for line in made.lines():
        typer.echo(line, err=True)
    if dry_run:
        return None
    with progress_bars(progress) as shown:
        result = run_search(
            made, shown, lambda line: typer.echo(line, err=True), asked.get("quick", False)
        )
    found = result.recipe()
    for line in result_lines(result):
        typer.echo(line, err=found is not None)
    if found is None:
        typer.echo("error: no recipe was found that meets the budgets", err=True)
        raise typer.Exit(exit_code(result))
    share_stages(out, out / FOLDER)
    return found
