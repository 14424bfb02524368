"""The commands. Heavy imports wait until a command runs, so that --help is instant."""

# code-key: presents

import sys
from typing import Annotated, NoReturn

import typer

from edgekd.cli.bench import bench
from edgekd.cli.board import board
from edgekd.cli.compress import compress
from edgekd.cli.data import data
from edgekd.cli.diagnose import diagnose
from edgekd.cli.doctor import doctor
from edgekd.cli.firmware import firmware
from edgekd.cli.init import init
from edgekd.cli.inspect import inspect
from edgekd.cli.methods import methods
from edgekd.cli.output import print_error
from edgekd.cli.report import report
from edgekd.cli.search import search
from edgekd.cli.targets import targets
from edgekd.cli.unpack import unpack
from edgekd.cli.verify import verify
from edgekd.errors import EdgekdError, InputError
from edgekd.installed import quiet_libraries, switch_telemetry_off
from edgekd.version import __version__

INTERRUPTED = 130
CLOSED_PIPE = 141
"""The shell's exit code for a process that wrote to a closed pipe; not one of edgekd's own."""

app = typer.Typer(
    name="edgekd",
    help="Compress a trained model for an edge device and measure the deployed file.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        typer.echo(f"edgekd {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (
    compress, search, targets, methods, doctor, init, inspect, bench, diagnose, report, unpack,
    verify,
):  # fmt: skip
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(firmware, name="firmware")
app.add_typer(board, name="board")


def main() -> NoReturn:
    """Run the command line; each of edgekd's own errors becomes its exit code."""
    switch_telemetry_off()
    debug = "--debug" in sys.argv[1:]
    if not debug:
        quiet_libraries()
    try:
        code = app(standalone_mode=False, args=_with_debug_first(sys.argv[1:]))
    except EdgekdError as error:
        if debug:
            raise
        print_error(error)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # Typer's: nobody reads our output
            sys.exit(CLOSED_PIPE)
        raise
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except Exception as error:
        if debug:
            raise
        _refuse_usage_or_bug(error)
    if code == INTERRUPTED:  # Typer turns Ctrl-C inside a command into this code
        _interrupted()
    sys.exit(code or 0)


def _with_debug_first(arguments: list[str]) -> list[str]:
    """Accept --debug anywhere on the command line."""
    rest = [argument for argument in arguments if argument != "--debug"]
    return ["--debug", *rest] if len(rest) < len(arguments) else rest


def _interrupted() -> NoReturn:
    typer.echo("error: interrupted; finished steps are kept", err=True)
    typer.echo("hint: run the same command again to continue from there", err=True)
    sys.exit(INTERRUPTED)


def _refuse_usage_or_bug(error: Exception) -> NoReturn:
    from typer.exceptions import TyperException

    if isinstance(error, TyperException):
        print_error(InputError(error.format_message(), hint="see 'edgekd --help'"))
        sys.exit(2)
    typer.echo(f"error: an unexpected {type(error).__name__}: {error}", err=True)
    typer.echo("hint: this is a bug in edgekd; run again with --debug for the traceback", err=True)
    sys.exit(3)


if __name__ == "__main__":
    main()
