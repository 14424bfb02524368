"""The command line of `edgekd compress`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.auto import check_auto, search_first
from edgekd.cli.options import Accept, AsJson, Device, Offline, Seed, TargetNames


def compress(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe file; the digits example if left out.")
    ] = None,
    target: TargetNames = [],  # noqa: B006
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Use only this backend of the targets; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for results.")] = Path("runs/latest"),
    budget: Annotated[
        list[str] | None, typer.Option(help="A budget, such as latency_ms=5; repeatable.")
    ] = None,
    device: Device = None,
    accept: Accept = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Override a key of the recipe, as in stage.distill.epochs=3; repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Reuse finished steps of earlier runs.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    seed: Seed = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure briefly.")] = False,
    progress: Annotated[bool, typer.Option(help="Draw progress bars on a terminal.")] = True,
    offline: Offline = False,
    depfile: Annotated[
        Path | None,
        typer.Option(
            help="Write a dependency file for make or ninja, with OUT/edgekd.lock as the target."
        ),
    ] = None,
    auto: Annotated[
        bool,
        typer.Option("--auto", help="Search for the stages first, as 'edgekd search' does."),
    ] = False,
    trials: Annotated[int | None, typer.Option(help="With --auto: trials of the search.")] = None,
    hours: Annotated[float | None, typer.Option(help="With --auto: hours of the search.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compress a model for one or more targets and check the files against budgets."""
    from edgekd.api import plan as make_plan
    from edgekd.report.overruns import exit_code, failure_lines, overrun_lines
    from edgekd.report.terminal import print_report
    from edgekd.run.compress import run_plan
    from edgekd.run.depfile import depfile_text
    from edgekd.run.lock.inputs import watched_files
    from edgekd.run.offline import forbid_network
    from edgekd.run.progress import progress_bars
    from edgekd.run.request import Asked
    from edgekd.store import write_beside
    from edgekd.values.recipe import default_recipe

    if offline:
        forbid_network()
    asked: Asked = {
        "target": target,
        "backends": backend or [],
        "budgets": budget or [],
        "settings": set_ or [],
        "out": out,
        "device": device,
        "accept": accept or [],
        "seed": seed,
        "quick": quick,
        "resume": resume,
        "command": shlex.join(["edgekd", *sys.argv[1:]]),
    }
    check_auto(auto, len(target), trials, hours)
    if auto:
        recipe = search_first(recipe, asked, trials, hours, progress, dry_run)
        if recipe is None:
            return
        asked["settings"] = []  # which the recipe that was found has already
    plan = make_plan(recipe, **asked)
    for line in plan.lines():
        typer.echo(line, err=True)
    if depfile:
        watched = watched_files(plan.request.recipe, recipe or default_recipe(), target)
        text = depfile_text(str(out / "edgekd.lock"), watched)  # refuses before any training
    if dry_run:
        return
    with progress_bars(progress) as shown:
        report = run_plan(plan, shown)
    if depfile:
        write_beside(depfile, text)
    if as_json:
        typer.echo((out / "report.json").read_text(encoding="utf-8"), nl=False)
    else:
        print_report(report, out)
    for line in overrun_lines(report):
        typer.echo(f"{'error' if report.verdict == 'fail' else 'note'}: {line}", err=True)
    for line in failure_lines(report):
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(exit_code(report))
