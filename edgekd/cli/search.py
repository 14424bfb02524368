"""The command line of `edgekd search`."""

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.options import Accept, AsJson, Device, Offline, Seed, TargetNames
from edgekd.errors import InputError

SHOWING = ("status", "report")


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] | status DIR | report DIR",
            help="A recipe with ranges, or without any: a default space is taken. "
            "'status' shows how far a search has come, 'report' writes its page again.",
        ),
    ] = None,
    target: TargetNames = [],  # noqa: B006
    budget: Annotated[
        list[str] | None, typer.Option(help="A budget, such as latency_ms=5; repeatable.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials of the whole search; 20 without --hours.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Hours of the whole search, over all calls.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The search's folder.")] = Path("searches/latest"),
    space: Annotated[
        str, typer.Option(help="A default space instead of the recipe's own stages.")
    ] = "",
    sampler: Annotated[
        str, typer.Option(help="tpe learns from the trials before; random does not.")
    ] = "tpe",
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna's storage, shared by several machines: journal:FILE or a URL."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Trials that run side by side, each on its own cores.")
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="What runs them: processes of this machine, or ray.")
    ] = "processes",
    early_stopping: Annotated[
        str,
        typer.Option(
            help="halving or median: end the training of trials that are clearly worse than others."
        ),
    ] = "none",
    warm_start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Try first what the search in this folder found."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Use only this backend of the targets; repeatable."),
    ] = None,
    device: Device = None,
    accept: Accept = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of the recipe, also with a range; repeatable."),
    ] = None,
    seed: Seed = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure the chosen point briefly too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the space only.")] = False,
    progress: Annotated[bool, typer.Option(help="Draw progress bars on a terminal.")] = True,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Search for the best network that meets budgets on one or more targets."""
    import shlex
    import sys
    from typing import cast

    from edgekd.run.offline import forbid_network
    from edgekd.run.progress import progress_bars
    from edgekd.searching.request import EarlyStopping, Engine, Sampler, SearchOptions, make_search
    from edgekd.searching.run import run_search
    from edgekd.searching.text import exit_code

    recipe = _recipe(words or [])
    if words and words[0] in SHOWING:
        _show(words[0], Path(words[1]), as_json)
        return
    if offline:
        forbid_network()
    made = make_search(
        recipe,
        {
            "target": target,
            "backends": backend or [],
            "budgets": budget or [],
            "settings": set_ or [],
            "out": out,
            "device": device,
            "accept": accept or [],
            "seed": seed,
            "command": shlex.join(["edgekd", *sys.argv[1:]]),
        },
        SearchOptions(
            trials,
            hours,
            storage,
            space,
            sampler=cast(Sampler, sampler),
            workers=workers,
            engine=cast(Engine, engine),
            early_stopping=cast(EarlyStopping, early_stopping),
            warm_start=warm_start,
        ),
    )
    for line in made.lines():
        typer.echo(line, err=True)
    if dry_run:
        return
    with progress_bars(progress) as shown:
        result = run_search(made, shown, lambda line: typer.echo(line, err=True), quick)
    _print(result, out, as_json)
    raise typer.Exit(exit_code(result))


def _recipe(words: list[str]) -> Path | None:
    """The recipe's path. Raises `InputError` if the words are none of the command's forms."""
    showing = bool(words) and words[0] in SHOWING
    if len(words) > 1 + showing or (showing and len(words) < 2):
        raise InputError(
            f"'{' '.join(words)}' is not a search",
            where="edgekd search",
            allowed="[RECIPE], status DIR, report DIR",
            hint="see 'edgekd search --help'",
        )
    return Path(words[0]) if words and not showing else None


def _show(what: str, folder: Path, as_json: bool) -> None:
    """`search status` and `search report`."""
    from edgekd.searching.page import write_page
    from edgekd.searching.result import load_search
    from edgekd.searching.text import status_lines
    from edgekd.store import locked

    result = load_search(folder)
    if what == "report":
        write_page(result, folder)
        _print(result, folder, as_json)
        return
    try:
        with locked(folder):
            busy = False
    except BlockingIOError:
        busy = True
    if as_json:
        _print(result, folder, as_json)
        return
    for line in status_lines(result, folder, busy):
        typer.echo(line)


def _print(result: object, folder: Path, as_json: bool) -> None:
    from edgekd.searching.page import NAME
    from edgekd.searching.result import SearchResult, result_text
    from edgekd.searching.text import broken_lines, result_lines

    assert isinstance(result, SearchResult)
    if as_json:
        typer.echo(result_text(result), nl=False)
        return
    for line in result_lines(result):
        typer.echo(line)
    typer.echo(f"verdict: {result.verdict}")
    typer.echo(f"report:  {folder / NAME}")
    for line in broken_lines(result):
        typer.echo(f"{'error' if result.verdict == 'fail' else 'note'}: {line}", err=True)
