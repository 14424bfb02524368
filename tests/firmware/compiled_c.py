"""Generated C compiled for this machine with every warning an error, under the sanitizers, and run."""

import subprocess
from pathlib import Path

import numpy as np

from edgekd.firmware.generate import Generated

WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

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


def build(generated: Generated, folder: Path, *options: str) -> Path:
    """The program that maps inputs on stdin to outputs on stdout; options default to sanitizers."""
    header, source = generated.write(folder)
    main = folder / "main.c"
    main.write_text(MAIN.format(name=generated.name, macro=generated.name.upper()))
    program = folder / generated.name
    flags = options or ("-O1", *SANITIZERS)
    command = ["gcc", *WARNINGS, *flags, f"-I{header.parent}", main, source, "-o", program]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def by_c(program: Path, inputs: np.ndarray) -> np.ndarray:
    """(N, bytes) for (N, bytes)."""
    done = subprocess.run(
        [program], input=inputs.tobytes(), capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.int8).reshape(len(inputs), -1)
