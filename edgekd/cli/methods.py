"""The command line of `edgekd methods`."""

from typing import Annotated

import typer

from edgekd.cli.options import AsJson
from edgekd.cli.output import print_json, print_rows


def methods(
    name: Annotated[
        str | None, typer.Argument(help="A kind of method, or a method's name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every loss, criterion and stage with its paper, or explain one."""
    from dataclasses import asdict

    from edgekd.methods import KINDS, find_method, list_methods, methods_of

    listing = name is None or name in KINDS
    if as_json:
        whole = methods_of(name) if name is None or name in KINDS else find_method(name)
        print_json([asdict(method) for method in whole])
    elif listing:
        rows = [(each.kind, each.name, each.summary, each.paper) for each in list_methods(name)]
        print_rows([("kind", "name", "description", "paper"), *rows])
    else:
        for method in find_method(str(name)):
            typer.echo(f"{method.kind} {method.name}  {method.paper}\n\n{method.text}\n")
            if method.parameters:
                print_rows([("parameter", "type", "default"), *method.parameters])
            if method.recipe:
                typer.echo(f"\n{method.recipe}")
