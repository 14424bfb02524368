"""`edgekd firmware ...`: commands for firmware builds. Heavy imports are inside the commands."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.options import Accept, Seed
from edgekd.package import package_folder

firmware = typer.Typer(help="Generate sources for a firmware build.")

CMAKE_FOLDER = package_folder() / "firmware" / "cmake"
ZEPHYR_FOLDER = package_folder() / "firmware" / "zephyr"
YOCTO_FOLDER = package_folder() / "firmware" / "yocto"


@firmware.command("cmake-dir")
def cmake_dir() -> None:
    """Print the CMake package folder, for -Dedgekd_DIR."""
    typer.echo(str(CMAKE_FOLDER))


@firmware.command("zephyr-dir")
def zephyr_dir() -> None:
    """Print the Zephyr module's folder, for -DZEPHYR_EXTRA_MODULES."""
    typer.echo(str(ZEPHYR_FOLDER))


@firmware.command("yocto-dir")
def yocto_dir() -> None:
    """Print the Yocto layer's folder, for BBPATH."""
    typer.echo(str(YOCTO_FOLDER))


@firmware.command("c")
def plain_c(
    model: Annotated[Path, typer.Argument(help="A full-int8 .tflite file.")],
    out: Annotated[Path, typer.Option(help="The folder for NAME.h and NAME.c.")],
    name: Annotated[str, typer.Option(help="The prefix of file and function names.")] = "",
    arithmetic: Annotated[
        str,
        typer.Option(
            help="The runtime whose fully connected layers are matched to the bit: micro or litert."
        ),
    ] = "micro",
    instructions: Annotated[
        str,
        typer.Option(
            help="The cores that the kernels are fast on: dsp (Cortex-M4, M7, M33) or mve (Helium);"
            " plain is slower and takes the least flash."
        ),
    ] = "dsp",
    cmsis_nn: Annotated[
        str, typer.Option(help="Call CMSIS-NN on cores with these instructions: dsp or mve.")
    ] = "",
    patches: Annotated[
        str,
        typer.Option(
            help="Compute layers patch by patch: auto (to keep --arena-limit), never or always."
        ),
    ] = "auto",
    arena_limit: Annotated[
        int | None, typer.Option(min=1, help="The most bytes that the arena may have.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Write an int8 network as C11: no heap, no runtime, one static arena."""
    from edgekd.firmware.cmsis_nn import check_variant
    from edgekd.firmware.generate import check_arithmetic, generate
    from edgekd.firmware.instructions import check_instructions
    from edgekd.firmware.patches.plan import Patching, check_patches
    from edgekd.firmware.stored_facts import facts_in

    patching = Patching(check_patches(patches), arena_limit)
    generated = generate(
        model,
        name,
        facts_in(model),
        arithmetic=check_arithmetic(arithmetic),
        cmsis_nn=check_variant(cmsis_nn),
        instructions=check_instructions(instructions),
        patching=patching,
    )
    generated.check_arena(patching, "--arena-limit")
    paths = generated.write(out)
    if as_json:
        files = {"files": [str(path) for path in paths], "notes": list(generated.notes)}
        typer.echo(json.dumps(files | dict(generated.numbers), indent=1))
        return
    for path in paths:
        typer.echo(str(path))
    numbers = generated.numbers
    typer.echo(
        f"arena {numbers['arena_bytes']} bytes (at least {numbers['arena_bound_bytes']}), "
        f"constants {numbers['constant_bytes']} bytes, {numbers['kernel_calls']} calls"
    )
    for note in generated.notes:
        typer.echo(note)


@firmware.command("tflm")
def micro(
    model: Annotated[Path, typer.Argument(help="A .tflite file, or one that Vela made.")],
    out: Annotated[Path, typer.Option(help="The folder for the sources.")],
    name: Annotated[str, typer.Option(help="The prefix of file and symbol names.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Write a model as a C array and op resolver for TensorFlow Lite Micro."""
    from edgekd.firmware.arena import measure_arena
    from edgekd.firmware.stored_facts import facts_in
    from edgekd.firmware.tflm import micro_sources

    facts = facts_in(model)  # refuses what is damaged before a runtime sees it
    arena = measure_arena(model)
    sources = micro_sources(model, arena, name, facts)
    paths = sources.write(out)
    if as_json:
        numbers = {
            "files": [str(path) for path in paths],
            "ops": list(sources.ops),
            "arena": arena.model_dump(mode="json"),
        }
        typer.echo(json.dumps(numbers, indent=1))
        return
    for path in paths:
        typer.echo(str(path))
    size = f"{arena.value:.0f} bytes (measured)" if arena.value is not None else arena.reason
    typer.echo(f"arena: {size}; operators: {', '.join(sources.ops)}")


@firmware.command("build")
def build(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")],
    target: Annotated[str, typer.Option(help="A target's name or .toml file.")],
    name: Annotated[str, typer.Option(help="The prefix of file and symbol names.")],
    out: Annotated[Path, typer.Option(help="The folder for NAME.h and the other sources.")],
    output: Annotated[str, typer.Option(help="c (C11, no runtime) or tflm (C array).")] = "c",
    run: Annotated[Path | None, typer.Option(help="The run's folder; OUT/run if left out.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="A budget, such as size_kib=64; repeatable.")
    ] = None,
    accept: Accept = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of the recipe, as KEY=VALUE; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="The device to measure on.")] = None,
    seed: Seed = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure briefly.")] = False,
    depfile: Annotated[
        Path | None,
        typer.Option(
            help="Write a dependency file for make or ninja, with OUT/NAME.h as the target."
        ),
    ] = None,
) -> None:
    """Compress a model and write its sources, offline; fails on a broken budget."""
    from edgekd.report.overruns import exit_code, failure_lines, overrun_lines
    from edgekd.run.depfile import depfile_text
    from edgekd.run.firmware import build as build_sources
    from edgekd.run.firmware import check_build
    from edgekd.run.lock.inputs import watched_files
    from edgekd.run.offline import forbid_network
    from edgekd.run.request import make_request
    from edgekd.store import write_beside

    request = make_request(
        recipe,
        {
            "target": target,
            "out": run or out / "run",
            "budgets": budget or [],
            "device": device,
            "accept": accept or [],
            "settings": set_ or [],
            "seed": seed,
            "quick": quick,
            "command": shlex.join(["edgekd", *sys.argv[1:]]),
        },
    )
    check_build(request, name, output)
    header = out / (f"{name}.h" if output == "c" else f"{name}_model.h")
    text = depfile_text(str(header), watched_files(request.recipe, recipe, [target]))
    if device is None:
        forbid_network()
    report, paths = build_sources(request, name, output, out)
    for line in [*overrun_lines(report), *failure_lines(report)]:
        typer.echo(f"error: {line}", err=True)
    if exit_code(report):
        raise typer.Exit(exit_code(report))
    if depfile:
        write_beside(depfile, text)
    for path in paths:
        typer.echo(str(path))
