"""How commands print: tables, JSON, and errors with their hints."""

import json
from typing import Any

import typer

from edgekd.errors import EdgekdError


def print_json(value: Any) -> None:
    """Print plain values as indented JSON."""
    typer.echo(json.dumps(value, indent=1))


def print_rows(rows: list[tuple[str, ...]]) -> None:
    """Aligned columns; the last one is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[-1]]).rstrip())


def print_error(error: EdgekdError) -> None:
    """Print `error:` with the place, the problem and the allowed values, then `hint:` with what
    to do next."""
    for fault in error.faults:
        typer.echo(f"error: {fault}", err=True)
        if fault.hint:
            typer.echo(f"hint: {fault.hint}", err=True)
