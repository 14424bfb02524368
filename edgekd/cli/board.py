"""`edgekd board ...`: emulated boards, created once and then used as `--device emulated://NAME`."""

import json
from typing import Annotated, Any

import typer

board = typer.Typer(help="Emulated Arm boards, for latencies without hardware.")

Name = Annotated[str, typer.Argument(help="A 64-bit Arm target, such as raspberry-pi-5.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@board.command()
def create(name: Name, as_json: AsJson = False) -> None:
    """Build a target's board from Debian packages and PyPI wheels."""
    from edgekd.devices.emulated.catalog import as_table, create_board

    typer.echo(f"creating {name}: this takes minutes the first time", err=True)
    found, made = create_board(name)
    if as_json:
        typer.echo(json.dumps(as_table(found), indent=1))
        return
    state = "created" if made else "already there"
    typer.echo(f"{state}: {name}, {found.bytes / 1e6:,.0f} MB; use --device emulated://{name}")


@board.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List the created boards with their contents and state."""
    from edgekd.devices.emulated.catalog import as_table, list_boards

    tables = [as_table(found) for found in list_boards()]
    if as_json:
        typer.echo(json.dumps(tables, indent=1))
        return
    if not tables:
        typer.echo("no board has been created; 'edgekd board create raspberry-pi-5' makes one")
    for table in tables:
        typer.echo(_line(table))


def _line(table: dict[str, Any]) -> str:
    runtimes = ", ".join(f"{name} {version}" for name, version in table["packages"].items())
    state = "running" if table["running"] else "stopped"
    old = "; outdated, create it again" if table["outdated"] else ""
    return (
        f"{table['name']}: {table['processor']}, {table['bytes'] / 1e6:,.0f} MB, {state}, "
        f"kernel {table['kernel']}, QEMU {table['emulator']}; {runtimes}{old}"
    )


@board.command()
def start(name: Name) -> None:
    """Keep a board running between measurements, paused when idle."""
    from edgekd.devices.emulated.catalog import find_board, start_board

    _, started = start_board(find_board(name))
    typer.echo(f"{name} {'is running now' if started else 'was running already'}")


@board.command()
def stop(name: Name) -> None:
    """Stop a running board; files sent to it are lost, the board is kept."""
    from edgekd.devices.emulated.catalog import find_board, stop_board

    stopped = stop_board(find_board(name))
    typer.echo(f"{name} {'is stopped' if stopped else 'was not running'}")


@board.command()
def remove(name: Name) -> None:
    """Delete a board; files shared with other boards stay in the cache."""
    from edgekd.devices.emulated.catalog import remove_board

    freed = remove_board(name)
    typer.echo(f"removed {freed.name}")
