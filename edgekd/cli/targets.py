"""The command line of `edgekd targets`."""

from typing import Annotated

import typer

from edgekd.cli.options import AsJson
from edgekd.cli.output import print_json, print_rows


def targets(
    name: Annotated[
        str | None, typer.Argument(help="Show this target with the sources of its facts.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the targets, or show one with the sources of its facts."""
    from edgekd.values.target import load_target, target_files, target_path

    if name is not None:
        if as_json:
            typer.echo(load_target(name).model_dump_json(indent=1))
        else:
            load_target(name)
            typer.echo(target_path(name).read_text(encoding="utf-8"), nl=False)
        return
    rows = [load_target(known) for known in sorted(target_files())]
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    print_rows(
        [
            ("target", "hardware", "backends"),
            *((row.name, row.title, ", ".join(row.backends)) for row in rows),
        ]
    )
