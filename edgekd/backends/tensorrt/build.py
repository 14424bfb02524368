"""Builds an engine with trtexec: writes the script that does it, or runs it on a board."""

import re
import shlex
from pathlib import Path
from typing import get_args

from edgekd.backends import Board
from edgekd.backends.tensorrt.options import TensorrtOptions
from edgekd.errors import ToolError
from edgekd.store import file_beside
from edgekd.values.artifact import Artifact, Precision


def script_name(engine: str) -> str:
    """The name of the script that builds an engine; engines of several precisions have one each."""
    precision = engine.removesuffix(".engine").rpartition("_")[2]
    return f"build_engine_{precision}.sh" if precision in get_args(Precision) else "build_engine.sh"


PRECISION_FLAGS = {"int8": ("--int8", "--fp16"), "fp16": ("--fp16",)}
"""What lets trtexec of TensorRT 8 and 10 use kernels of a precision. With QDQ pairs `--int8` merely
allows integer kernels, and `--fp16` lets the layers between them run in half precision. TensorRT 11
has no such flags: there each layer has the type that the ONNX file gives it (NVIDIA, "Migrating
trtexec Usage from TensorRT 10.x to 11.x")."""


def build_arguments(
    model: str, engine: str, options: TensorrtOptions, folder: str = "."
) -> tuple[str, ...]:
    """trtexec's arguments besides the precision flags, the same for the script and for a build
    through edgekd.

    As in the help of TensorRT 8.6, 10 and 11 (samples/common/sampleOptions.cpp): `--skipInference`
    replaced `--buildOnly` in 8.6.
    """
    arguments = [
        f"--onnx={folder}/{model}",
        f"--saveEngine={folder}/{engine}",
        f"--timingCacheFile={folder}/timing.cache",
        f"--builderOptimizationLevel={options.builder_optimization_level}",
        "--profilingVerbosity=detailed",
        f"--exportLayerInfo={folder}/layers.json",
    ]
    if options.workspace_mib is not None:
        arguments.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    return tuple(arguments)


def write_script(
    folder: Path, model: str, engine: str, precision: str, options: TensorrtOptions
) -> Path:
    """A POSIX script that builds the engine in its own folder; same input, same bytes."""
    path = folder / script_name(engine)
    arguments = (*build_arguments(model, engine, options), "--skipInference")
    quoted = " \\\n    ".join(shlex.quote(argument) for argument in arguments)
    flags = " ".join(PRECISION_FLAGS.get(precision, ()))
    text = f"""#!/bin/sh
# Builds the TensorRT engine on the board that runs it, from the ONNX file beside this script.
set -eu
cd -- "$(dirname -- "$0")"
trtexec=${{TRTEXEC:-$(command -v trtexec || echo {shlex.quote(options.trtexec)})}}
if ! [ -x "$trtexec" ]; then
    echo "error: no trtexec: install libnvinfer-bin, or set TRTEXEC" >&2
    exit 3
fi
# TensorRT 11 has no precision flags: each layer has the type that the ONNX file gives it.
precision="{flags}"
"$trtexec" --help 2>&1 | grep -q '^ *--fp16' || precision=""
exec "$trtexec" $precision \\
    {quoted}
"""
    with file_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o755)
    return path


def find_trtexec(board: Board, options: TensorrtOptions) -> str:
    """The path of trtexec on the board, or "": the PATH first, then NVIDIA's own folder."""
    quoted = shlex.quote(options.trtexec)
    probe = f"command -v trtexec || {{ [ -x {quoted} ] && echo {quoted}; }}"
    code, out, _ = board.execute(["sh", "-c", probe], 30.0)
    lines = out.strip().splitlines()
    return lines[0] if code == 0 and lines else ""


def _precision_flags(board: Board, trtexec: str, precision: str) -> tuple[str, ...]:
    """The precision flags that this trtexec knows."""
    _, out, err = board.execute([trtexec, "--help"], 30.0)
    known = re.search(r"^ *--fp16", out + err, re.MULTILINE)
    return PRECISION_FLAGS.get(precision, ()) if known else ()


def build_engine(
    board: Board,
    trtexec: str,
    model: Path,
    engine: Path,
    artifact: Artifact,
    options: TensorrtOptions,
) -> tuple[str, str]:
    """Build on the board and bring the engine here; the log, and the layers as JSON."""
    place, _, name = board.send(model).rpartition("/")
    place = place or "."
    partial = engine.with_name(f".{engine.name}.partial")
    remote = f"{place}/{partial.name}"
    flags = _precision_flags(board, trtexec, artifact.precision)
    arguments = build_arguments(name, partial.name, options, place)
    code, out, err = board.execute([trtexec, *flags, *arguments], options.time_limit_seconds)
    log = out + err
    if code or "&&&& FAILED" in log:
        board.execute(["rm", "-f", remote], 60.0)
        raise _failure(code, log, model, options.time_limit_seconds)
    try:
        board.fetch(remote, partial)
        partial.replace(engine)
    except OSError as error:
        raise ToolError(f"trtexec wrote no engine: {error}", where=str(model)) from None
    _, layers, _ = board.execute(["cat", f"{place}/layers.json"], 60.0)
    return log, layers


def _failure(code: int, log: str, model: Path, limit: float) -> ToolError:
    if code == 124:
        return ToolError(
            f"trtexec did not end within {limit:g} s",
            where=str(model),
            hint="raise time_limit_seconds in [backends.tensorrt]",
        )
    return ToolError(f"trtexec failed (exit status {code}): {_first_error(log)}", where=str(model))


def _first_error(log: str) -> str:
    """The first error line of trtexec's log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    error = next((line for line in lines if "[E]" in line), "")
    return error.partition("[E]")[2].strip() or (lines[-1] if lines else "no output")
