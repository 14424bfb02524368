"""Hostile TFLite files: an error with exit code 2, or C that stays within its memory."""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hostile_files import WHOLE, bent, damaged, whole_network
from operator_cases import CASES

from edgekd.errors import InputError
from edgekd.firmware import hosted
from edgekd.firmware.arena import measure_arena
from edgekd.firmware.generate import generate

WORKER = Path(__file__).parent / "hostile_worker.py"
BASES = len(CASES) + 1 + 12
SAMPLES = 100
LARGEST_ARENA = 1 << 20
MAIN = """#include <stdio.h>
#include <string.h>
{includes}

int main(void)
{{
    long sum = 0;
{calls}
    printf("%ld\\n", sum);
    return 0;
}}
"""
CALL = """    {{
        _Alignas({macro}_ARENA_ALIGNMENT) static int8_t arena[{macro}_ARENA_BYTES];
        for (int value = -128; value < 128; value += 51) {{
            memset({name}_input(arena), value, {macro}_INPUT_BYTES);
            {name}_invoke(arena);
            for (int i = 0; i < {macro}_OUTPUT_BYTES; i++) sum += {name}_output(arena)[i];
        }}
    }}"""


SUPPORT = Path(__file__).parents[1] / "support"
PATHS = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}


def judge_all(folder: Path, each: int) -> tuple[Counter[str], list[str]]:
    """Verdicts by kind, and all that went wrong, crashes and hangs of the worker among it."""
    faults, start = [], 0
    while len(faults) < 20:
        command = [sys.executable, str(WORKER), str(folder), str(each), str(start)]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
        if done.returncode == 0:
            break
        number = int((folder / "progress").read_text())
        faults.append(f"file {number} ended the process: {done.returncode} {done.stderr[-300:]}")
        start = number + 1
    rows = [json.loads(line) for line in (folder / "verdicts").read_text().splitlines()]
    assert len({number for number, _, _ in rows}) == len(rows)
    faults += [f"{name}: {verdict}" for _, name, verdict in rows if verdict.startswith("wrong")]
    return Counter(verdict for _, _, verdict in rows), faults


def test_hostile_files_are_refused_with_exit_code_2_or_become_c(tmp_path):
    found, faults = judge_all(tmp_path, 2)
    assert faults == []
    assert found.total() == 2 * 2 * BASES
    assert found["refused"] > found["other"] > 0


def structure(source: str) -> str:
    """The C without the contents of its tables: what decides where it reads and writes."""
    return re.sub(r"(table_\d+\[\d+\] = \{)[^}]*", r"\1", source)


def different(folder: Path, count: int) -> list[Path]:
    """Accepted files whose C has a structure that no other of them has, at random."""
    files = sorted(folder.iterdir())
    random.Random(0).shuffle(files)
    found: dict[str, Path] = {}
    for path in files:
        if len(found) == count:
            break
        made = generate(path, "m")
        if made.numbers["arena_bytes"] <= LARGEST_ARENA and "M_INPUT_BYTES" in made.header:
            found.setdefault(structure(made.source), path)
    return list(found.values())


def run_under_sanitizers(files: list[Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """All of them in one program, each with an arena of just its size between red zones."""
    folder.mkdir()
    objects, names = [], [f"m{number}" for number in range(len(files))]
    flags = [*hosted.WARNINGS, "-O1", *hosted.SANITIZERS]
    for name, path in zip(names, files, strict=True):
        _, source = generate(path, name).write(folder)
        objects.append(folder / f"{name}.o")
        command = ["gcc", *flags, "-c", str(source), "-o", str(objects[-1])]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    includes = "\n".join(f'#include "{name}.h"' for name in names)
    calls = "\n".join(CALL.format(name=name, macro=name.upper()) for name in names)
    (folder / "main.c").write_text(MAIN.format(includes=includes, calls=calls))
    program = folder / "program"
    command = ["gcc", "-std=c11", *hosted.SANITIZERS, f"-I{folder}", str(folder / "main.c")]
    done = subprocess.run(
        [*command, *map(str, objects), "-o", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("count", "compiled"),
    [
        pytest.param(2_500, SAMPLES // 2, marks=pytest.mark.slow),
        pytest.param(10_000, SAMPLES, marks=pytest.mark.long),
    ],
)
def test_hostile_files_neither_crash_nor_hang_nor_give_c_that_leaves_its_memory(
    count, compiled, tmp_path
):
    found, faults = judge_all(tmp_path, count // (2 * BASES) + 1)
    assert faults == []
    assert found.total() >= count
    if shutil.which("gcc") is None:
        pytest.skip("the accepted ones need gcc")
    files = different(tmp_path / "accepted", compiled)
    assert len(files) == compiled
    done = run_under_sanitizers(files, tmp_path / "c")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("change", ["read", "write"])
def test_the_sanitizers_see_a_byte_beyond_the_arena(change, tmp_path):
    """Otherwise the test of hostile files would show nothing."""
    (tmp_path / "accepted").mkdir()
    path = tmp_path / "accepted" / "0.tflite"
    path.write_bytes(CASES["RELU"]())
    assert run_under_sanitizers([path], tmp_path / "sound").returncode == 0
    right = hosted.WARNINGS
    assert "-Werror" in right
    made = generate(path, "m0")
    beyond = made.numbers["arena_bytes"]
    place = f"arena + {beyond}" if change == "write" else "arena + 1"
    text = made.source.replace("lookup(&layer_0, arena + 0,", f"lookup(&layer_0, {place},")
    assert text != made.source
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "m0.h").write_text(made.header)
    (folder / "m0.c").write_text(text)
    main = MAIN.format(includes='#include "m0.h"', calls=CALL.format(name="m0", macro="M0"))
    (folder / "main.c").write_text(main)
    command = ["gcc", "-O1", *hosted.SANITIZERS, "main.c", "m0.c", "-o", "program"]
    assert subprocess.run(command, cwd=folder).returncode == 0
    done = subprocess.run([folder / "program"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "AddressSanitizer: global-buffer-overflow" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["c", "tflm"])
def test_the_command_line_ends_with_2_and_one_error_for_a_damaged_file(command, tmp_path):
    for number, content in enumerate(damaged(whole_network(), 5, 1)):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        arguments = ["firmware", command, str(path), "--out", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-m", "edgekd", *arguments], capture_output=True, text=True
        )
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode == 2:
            assert done.stderr.startswith("error: ")
            assert str(path) in done.stderr


@pytest.mark.slow
def test_a_micro_runtime_that_a_hostile_file_crashes_leaves_a_reason_and_no_number(tmp_path):
    """Sound flatbuffers that say something else reach its kernels, which trust them."""
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    path, found = tmp_path / "m.tflite", []
    for content in bent(whole_network(), 20, 5):
        path.write_bytes(content)
        with contextlib.suppress(InputError):  # refused before the runtime sees it
            found.append(measure_arena(path, 60.0))
    kinds = Counter(one.kind for one in found)
    assert all((one.value is None) == bool(one.reason) for one in found)
    assert kinds["measured"] > 0
    assert kinds["unavailable"] > 0


def test_the_whole_network_is_sound_and_says_what_it_is(tmp_path):
    (tmp_path / "m.tflite").write_bytes(whole_network())
    assert generate(tmp_path / "m.tflite", "m").numbers["kernel_calls"] == 6, WHOLE
