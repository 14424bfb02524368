"""The command line of `edgekd verify`."""

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.options import AsJson
from edgekd.cli.output import print_json


def verify(
    folder: Annotated[Path, typer.Argument(help="A finished run.")],
    sources: Annotated[
        Path | None, typer.Option(help="The folder that `edgekd firmware build` wrote.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a finished run's hashes, lineage and parity."""
    from edgekd.run.verification import verify_run

    lines = verify_run(folder, sources)
    if as_json:
        print_json({"folder": str(folder), "verified": lines})
    else:
        typer.echo("\n".join(lines))
