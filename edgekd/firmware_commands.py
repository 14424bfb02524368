"""`edgekd firmware ...`: what a firmware build calls. Commands import what is heavy inside them."""

import json
from pathlib import Path
from typing import Annotated

import typer

firmware = typer.Typer(help="Models as sources for a firmware build.", no_args_is_help=True)

CMAKE_FOLDER = Path(__file__).parent / "firmware" / "cmake"


@firmware.command("cmake-dir")
def cmake_dir() -> None:
    """Print the folder for CMAKE_PREFIX_PATH, in which find_package(edgekd) looks."""
    typer.echo(str(CMAKE_FOLDER))


@firmware.command("c")
def plain_c(
    model: Annotated[Path, typer.Argument(help="A full-int8 .tflite file.")],
    out: Annotated[Path, typer.Option(help="The folder for NAME.h and NAME.c.")],
    name: Annotated[str, typer.Option(help="Begins files and functions.")] = "",
    arithmetic: Annotated[
        str, typer.Option(help="micro or litert: whose fully connected layers are matched.")
    ] = "micro",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Write an int8 network as C11: no heap, no runtime, one static arena."""
    from edgekd.firmware.generate import check_arithmetic, generate
    from edgekd.firmware.stored_facts import facts_in

    known = check_arithmetic(arithmetic)
    generated = generate(model, name, facts_in(model), arithmetic=known)
    paths = generated.write(out)
    if as_json:
        files = {"files": [str(path) for path in paths]}
        typer.echo(json.dumps(files | dict(generated.numbers), indent=1))
        return
    for path in paths:
        typer.echo(str(path))
    numbers = generated.numbers
    typer.echo(
        f"arena {numbers['arena_bytes']} bytes (at least {numbers['arena_bound_bytes']}), "
        f"constants {numbers['constant_bytes']} bytes, {numbers['kernel_calls']} calls"
    )


@firmware.command("tflm")
def micro(
    model: Annotated[Path, typer.Argument(help="A .tflite file, or one that Vela made.")],
    out: Annotated[Path, typer.Option(help="The folder for the sources.")],
    name: Annotated[str, typer.Option(help="Begins files and symbols.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Write a model as a C array and an op resolver for TensorFlow Lite Micro."""
    from edgekd.firmware.arena import measure_arena
    from edgekd.firmware.stored_facts import facts_in
    from edgekd.firmware.tflm import micro_sources

    facts = facts_in(model)  # refuses what is damaged before a runtime sees it
    arena = measure_arena(model)
    sources = micro_sources(model, arena, name, facts)
    paths = sources.write(out)
    if as_json:
        told = {
            "files": [str(path) for path in paths],
            "ops": list(sources.ops),
            "arena": arena.model_dump(mode="json"),
        }
        typer.echo(json.dumps(told, indent=1))
        return
    for path in paths:
        typer.echo(str(path))
    size = f"{arena.value:.0f} bytes (measured)" if arena.value is not None else arena.reason
    typer.echo(f"arena: {size}; operators: {', '.join(sources.ops)}")
