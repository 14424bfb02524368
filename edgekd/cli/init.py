"""The command line of `edgekd init`."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to write it to.")] = Path(),
) -> None:
    """Write a commented recipe to start from."""
    from edgekd.values.recipe import write_example

    path = write_example(folder)
    typer.echo(f"wrote {path}; next: edgekd compress {path} --target x86")
