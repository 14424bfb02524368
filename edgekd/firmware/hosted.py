"""Generated C compiled for this machine: the same integers as on the microcontroller, but fast."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.errors import InputError, ToolError
from edgekd.processes import how_it_ended, run_tool

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
    static const size_t from[] = {macro}_INPUT_OFFSETS, taken[] = {macro}_INPUT_SIZES;
    static const size_t to[] = {macro}_OUTPUT_OFFSETS, given[] = {macro}_OUTPUT_SIZES;
    for (;;) {{
        for (int i = 0; i < {macro}_INPUT_COUNT; i++) {{
            if (fread(arena + from[i], 1, taken[i], stdin) != taken[i]) {{
                return 0;
            }}
        }}
        {name}_invoke(arena);
        for (int i = 0; i < {macro}_OUTPUT_COUNT; i++) {{
            fwrite(arena + to[i], 1, given[i], stdout);
        }}
    }}
}}
"""


def compiler() -> str:
    """This machine's C compiler. Raises `InputError` if there is none."""
    for name in ("gcc", "cc", "clang"):
        path = shutil.which(name)
        if path:
            return path
    raise InputError("no C compiler is installed", where="generated C", hint="apt install gcc")


def build(source: Path, folder: Path, flags: Sequence[str] = ("-O2",)) -> Path:
    """Build a program in `folder` that maps inputs on stdin to outputs on stdout, from NAME.c with
    NAME.h beside it; warnings are errors."""
    name = source.stem
    main, program = folder / f"{name}_main.c", folder / name
    main.write_text(MAIN.format(name=name, macro=name.upper()), encoding="utf-8")
    files = (f"-I{source.parent}", str(main), str(source), "-o", str(program))
    done = run_tool(
        (compiler(), *WARNINGS, *flags, *files), BUILD_SECONDS, "the C compiler", str(source)
    )
    if done.status:
        raise ToolError(f"it does not compile: {done.log.strip()}", where=str(source))
    return program


def run(program: Path, inputs: np.ndarray) -> np.ndarray:
    """The bytes of all outputs (N, bytes) for those of all inputs (N, bytes), both in order."""
    content = np.ascontiguousarray(inputs, np.int8).tobytes()
    done = run_tool((str(program),), RUN_SECONDS, "the program", str(program), stdin=content)
    if done.status:
        message = f"{how_it_ended(done.status)}: {done.stderr.decode(errors='replace').strip()}"
        raise ToolError(message, where=str(program))
    return np.frombuffer(done.stdout, np.int8).reshape(len(inputs), -1)
