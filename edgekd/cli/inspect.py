"""The command line of `edgekd inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.options import AsJson


def inspect(
    artifact: Annotated[Path, typer.Argument(help="An ONNX, TFLite, .pt2 or TVM file.")],
    target: Annotated[
        str | None, typer.Option(help="Also show which operators map to this target.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a file's operators, types, sizes and memory plan."""
    from edgekd.api import inspect as inspect_file
    from edgekd.backends.inspection import inspection_lines

    inspection = inspect_file(artifact, target=target)
    if as_json:
        typer.echo(inspection.model_dump_json(indent=1))
    else:
        typer.echo("\n".join(inspection_lines(inspection)))
