"""The command line of `edgekd report`."""

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.options import AsJson
from edgekd.cli.output import print_json


def report(
    folder: Annotated[list[Path], typer.Argument(help="One or more finished runs.")],
    out: Annotated[Path | None, typer.Option(help="The file to write the comparison to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a run's table and regenerate its page, or compare several runs."""
    from edgekd.report.files import compare_runs, load_report, report_text, write_report
    from edgekd.report.terminal import print_report

    if len(folder) == 1:
        loaded = load_report(folder[0])
        write_report(loaded, folder[0])
        if as_json:
            typer.echo(report_text(loaded), nl=False)
        else:
            print_report(loaded, folder[0])
        return
    page = compare_runs(folder, out or Path("comparison.html"))
    if as_json:
        print_json({str(run): load_report(run).as_json() for run in folder})
    else:
        typer.echo(str(page))
