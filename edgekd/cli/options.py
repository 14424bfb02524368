"""Options that several commands share."""

from typing import Annotated

import typer

TargetNames = Annotated[
    list[str], typer.Option("--target", help="A target's name or .toml file; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str | None, typer.Option(help="host, ssh://USER@BOARD, or emulated://NAME.")]
Accept = Annotated[
    list[str] | None,
    typer.Option(help="A weaker kind of value that may satisfy a budget: simulated or estimated."),
]
Seed = Annotated[int | None, typer.Option(help="The random seed, instead of the recipe's.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fail instead of using the network.")]
