"""The command line of `edgekd data`."""

from typing import Annotated

import typer

data = typer.Typer(help="Named datasets.")


@data.command()
def fetch(name: Annotated[str, typer.Argument(help="fashion-mnist")]) -> None:
    """Download a named dataset and verify its hashes."""
    from edgekd.data.download import fetch as download

    for path in download(name):
        typer.echo(str(path))
