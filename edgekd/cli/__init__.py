"""The commands. Nothing heavy is imported before a command runs, so that --help is instant."""

# code-key: presents

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from edgekd.cli.bench import bench
from edgekd.cli.board import board
from edgekd.cli.firmware import firmware
from edgekd.errors import EdgekdError, InputError
from edgekd.version import __version__

# ONNX Runtime and NNCF would send telemetry; both read these before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("NNCF_DISABLE_TELEMETRY", "1")

INTERRUPTED = 130
CLOSED_PIPE = 141
"""What a shell says of a process that wrote into a pipe without a reader: no verdict of ours."""

app = typer.Typer(
    name="edgekd",
    help="Compress a trained model for an edge device and measure the deployed file.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TargetNames = Annotated[
    list[str], typer.Option("--target", help="A target's name or .toml file; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str | None, typer.Option(help="host, ssh://USER@BOARD, or emulated://NAME.")]


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


@app.command()
def compress(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe; digits if left out.")] = None,
    target: TargetNames = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="The folder for results.")] = Path("runs/latest"),
    budget: Annotated[
        list[str] | None, typer.Option(help="latency_ms=5 and the like; repeatable.")
    ] = None,
    device: Device = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(help="A weaker kind that may satisfy a budget: simulated or estimated."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="stage.distill.epochs=3; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Reuse what was finished before.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure briefly.")] = False,
    progress: Annotated[bool, typer.Option(help="Draw progress bars on a terminal.")] = True,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fail where the network would be used.")
    ] = False,
    depfile: Annotated[
        Path | None,
        typer.Option(help="Write what make or ninja has to watch, for OUT/edgekd.lock."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compress a model for one or more targets, and hold the files against budgets."""
    from edgekd.cli.progress import progress_bars
    from edgekd.measure.budgets import EXIT_CODES
    from edgekd.report.overruns import overrun_lines
    from edgekd.report.terminal import print_report
    from edgekd.run.compress import compress as run
    from edgekd.run.depfile import depfile_text
    from edgekd.run.lock.inputs import watched_files
    from edgekd.run.offline import forbid_network
    from edgekd.run.request import prepare
    from edgekd.store import write_beside
    from edgekd.values.recipe import default_recipe

    request = prepare(
        recipe=recipe,
        targets=target,
        out=out,
        budgets=budget or [],
        device=device,
        accept=accept or [],
        settings=set_ or [],
        resume=resume,
        seed=seed,
        quick=quick,
    )
    if offline:
        forbid_network()
    if depfile:
        watched = watched_files(request.recipe, recipe or default_recipe(), target)
        text = depfile_text(str(out / "edgekd.lock"), watched)  # refuses before any training
    with progress_bars(progress) as shown:
        report = run(request, shown, _say, dry_run=dry_run)
    if report is None:
        return
    if depfile:
        write_beside(depfile, text)
    if as_json:
        typer.echo((out / "report.json").read_text(encoding="utf-8"), nl=False)
    else:
        print_report(report, out)
    for line in overrun_lines(report):
        typer.echo(f"{'error' if report.verdict == 'fail' else 'note'}: {line}", err=True)
    raise typer.Exit(EXIT_CODES[report.verdict])


def _say(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(help="Show this one with its sources.")] = None,
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
        _print_json([row.model_dump(mode="json") for row in rows])
        return
    _print_rows(
        [
            ("target", "hardware", "backends"),
            *((row.name, row.title, ", ".join(row.backends)) for row in rows),
        ]
    )


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A kind, or one method's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every loss, criterion and stage with its paper, or explain one."""
    from dataclasses import asdict

    from edgekd.methods import KINDS, find_method, list_methods, methods_of

    listing = name is None or name in KINDS
    if as_json:
        whole = methods_of(name) if name is None or name in KINDS else find_method(name)
        _print_json([asdict(method) for method in whole])
    elif listing:
        rows = [(each.kind, each.name, each.summary, each.paper) for each in list_methods(name)]
        _print_rows([("kind", "name", "what it does", "paper"), *rows])
    else:
        for method in find_method(str(name)):
            typer.echo(f"{method.kind} {method.name}  {method.paper}\n\n{method.text}\n")
            if method.parameters:
                _print_rows([("parameter", "type", "default"), *method.parameters])
            if method.recipe:
                typer.echo(f"\n{method.recipe}")


@app.command()
def doctor(device: Device = None, as_json: AsJson = False) -> None:
    """Say which runtimes, compilers and sensors are here, or on a device; how to get the rest."""
    from dataclasses import asdict

    from edgekd.devices.doctor import examine, examine_device

    findings = examine_device(device) if device else examine()
    if as_json:
        _print_json([asdict(finding) for finding in findings])
        return
    rows = [(each.name, each.purpose, each.found or f"missing: {each.hint}") for each in findings]
    _print_rows([("what", "for", "found"), *rows])


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path()) -> None:
    """Write a commented recipe to start from."""
    from edgekd.values.recipe import write_example

    path = write_example(folder)
    typer.echo(f"wrote {path}; next: edgekd compress {path} --target x86")


@app.command()
def inspect(
    artifact: Annotated[Path, typer.Argument(help="An ONNX, TFLite, .pt2 or TVM file.")],
    target: Annotated[str | None, typer.Option(help="Also say what maps to it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a file's operators, types, sizes and memory plan."""
    from edgekd.backends.inspection import inspect_artifact, inspection_lines
    from edgekd.values.target import load_target

    found = inspect_artifact(artifact, load_target(target) if target else None)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        typer.echo("\n".join(inspection_lines(found)))


app.command()(bench)


@app.command()
def report(
    folder: Annotated[list[Path], typer.Argument(help="One finished run, or several.")],
    out: Annotated[Path | None, typer.Option(help="Where the comparison goes.")] = None,
) -> None:
    """Print a run's table and make its page again, or compare several runs."""
    from edgekd.report.files import compare_runs, load_report, write_report
    from edgekd.report.terminal import print_report

    if len(folder) == 1:
        found = load_report(folder[0])
        write_report(found, folder[0])
        print_report(found, folder[0])
        return
    page = compare_runs(folder, out or Path("comparison.html"))
    typer.echo(str(page))


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(help="A .huffman file of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Where the model goes.")] = None,
) -> None:
    """Bring an entropy-coded model back, bit for bit."""
    from edgekd.quant.packed_onnx import unpack as unpacked
    from edgekd.store import read_errors, write_beside

    with read_errors(file, "a .huffman file"):
        content = unpacked(file.read_bytes(), str(file))
    path = out or file.with_name(file.name.removesuffix(".huffman") + ".unpacked.onnx")
    write_beside(path, content)
    typer.echo(f"{path}: {len(content):,} bytes")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A finished run.")],
    sources: Annotated[
        Path | None, typer.Option(help="The folder of what `edgekd firmware build` wrote, too.")
    ] = None,
) -> None:
    """Check a finished run's hashes, lineage and parity."""
    from edgekd.run.verification import verify_run

    for line in verify_run(folder, sources):
        typer.echo(line)


data = typer.Typer(help="Named data sets.")
app.add_typer(data, name="data")
app.add_typer(firmware, name="firmware")
app.add_typer(board, name="board")


@data.command()
def fetch(name: Annotated[str, typer.Argument(help="fashion-mnist")]) -> None:
    """Download a named data set, checked against its known hashes."""
    from edgekd.data.download import fetch as download

    for path in download(name):
        typer.echo(str(path))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))


def _print_rows(rows: list[tuple[str, ...]]) -> None:
    """Aligned columns; the last one is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[-1]]).rstrip())


def print_error(error: EdgekdError) -> None:
    """`error:` with where, what and what is allowed, then `hint:` with the next command."""
    for fault in error.faults:
        typer.echo(f"error: {fault}", err=True)
        if fault.hint:
            typer.echo(f"hint: {fault.hint}", err=True)


def main() -> NoReturn:
    """Run the command line; every error of edgekd's own becomes its exit code."""
    debug = "--debug" in sys.argv[1:]
    if not debug:
        _quiet_libraries()
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


def _quiet_libraries() -> None:
    """Keep libraries' own remarks (missing GPU kernels, deprecations of theirs) out of stderr."""
    import logging
    import warnings

    for name in ("torchao", "torch.utils._pytree", "torch.onnx", "nncf"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def _with_debug_first(arguments: list[str]) -> list[str]:
    """--debug is understood wherever it stands."""
    rest = [argument for argument in arguments if argument != "--debug"]
    return ["--debug", *rest] if len(rest) < len(arguments) else rest


def _interrupted() -> NoReturn:
    typer.echo("error: interrupted; what was finished is kept", err=True)
    typer.echo("hint: run the same command again: it goes on from there", err=True)
    sys.exit(INTERRUPTED)


def _refuse_usage_or_bug(error: Exception) -> NoReturn:
    from typer.exceptions import TyperException

    if isinstance(error, TyperException):
        print_error(InputError(error.format_message(), hint="see 'edgekd --help'"))
        sys.exit(2)
    typer.echo(f"error: an unexpected {type(error).__name__}: {error}", err=True)
    typer.echo("hint: this is a fault of edgekd's; --debug shows where", err=True)
    sys.exit(3)


if __name__ == "__main__":
    main()
