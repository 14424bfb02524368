"""`edgekd firmware ...`: what a firmware build calls. Commands import what is heavy inside them."""

from pathlib import Path

import typer

firmware = typer.Typer(help="Models as sources for a firmware build.", no_args_is_help=True)

CMAKE_FOLDER = Path(__file__).parent / "firmware" / "cmake"


@firmware.command("cmake-dir")
def cmake_dir() -> None:
    """Print the folder for CMAKE_PREFIX_PATH, in which find_package(edgekd) looks."""
    typer.echo(str(CMAKE_FOLDER))
