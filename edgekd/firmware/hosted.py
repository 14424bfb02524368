"""Generated C compiled for this machine: the integers of the microcontroller, and quickly."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.errors import InputError, ToolError

WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
BUILD_SECONDS = 120.0
RUN_SECONDS = 900.0

MAIN = """
#include "{name}.h"
#include <stdio.h>

int main(void)
{{
    _Alignas({macro}_ARENA_ALIGNMENT) static int8_t arena[{macro}_ARENA_BYTES];
    while (fread({name}_input(arena), 1, {macro}_INPUT_BYTES, stdin) == {macro}_INPUT_BYTES) {{
        {name}_invoke(arena);
        fwrite({name}_output(arena), 1, {macro}_OUTPUT_BYTES, stdout);
    }}
    return 0;
}}
"""


def compiler() -> str:
    """This machine's C compiler. Raises `InputError` where there is none."""
    for name in ("gcc", "cc", "clang"):
        found = shutil.which(name)
        if found:
            return found
    raise InputError("no C compiler here", where="generated C", hint="apt install gcc")


def build(source: Path, folder: Path, flags: Sequence[str] = ("-O2",)) -> Path:
    """A program that maps inputs on stdin to outputs on stdout, from NAME.c with NAME.h beside it;
    warnings are errors. It lies in `folder`."""
    name = source.stem
    main, program = folder / f"{name}_main.c", folder / name
    main.write_text(MAIN.format(name=name, macro=name.upper()), encoding="utf-8")
    files = (f"-I{source.parent}", str(main), str(source), "-o", str(program))
    done = _run((compiler(), *WARNINGS, *flags, *files), b"", BUILD_SECONDS)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()
        raise ToolError(f"it does not compile: {told}", where=str(source))
    return program


def run(program: Path, inputs: np.ndarray) -> np.ndarray:
    """Int8 outputs (N, bytes) for int8 inputs (N, bytes)."""
    content = np.ascontiguousarray(inputs, np.int8).tobytes()
    done = _run((str(program),), content, RUN_SECONDS)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()
        raise ToolError(f"exit status {done.returncode}: {told}", where=str(program))
    return np.frombuffer(done.stdout, np.int8).reshape(len(inputs), -1)


def _run(
    command: Sequence[str], content: bytes, limit: float
) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            command, input=content, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"did not end within {limit:g} s", where=command[0]) from None
