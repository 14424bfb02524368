"""`edgekd firmware c` as a build calls it."""

import json
import subprocess
import sys

from operator_cases import CASES
from patch_networks import NETWORKS

EDGEKD = [sys.executable, "-m", "edgekd", "firmware", "c"]


def run(*words):
    return subprocess.run([*EDGEKD, *map(str, words)], capture_output=True, text=True)


def test_it_writes_two_files_and_their_numbers(tmp_path):
    (tmp_path / "m.tflite").write_bytes(CASES["pad into conv"]())
    done = run(tmp_path / "m.tflite", "--out", tmp_path / "out", "--name", "kws", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == [str(tmp_path / "out" / name) for name in ("kws.h", "kws.c")]
    assert told["arena_bytes"] == told["arena_bound_bytes"] == 144
    assert (tmp_path / "out" / "kws.c").is_file()


def test_a_damaged_file_is_one_line_and_exit_code_2(tmp_path):
    content = CASES["pad into conv"]()
    (tmp_path / "m.tflite").write_bytes(content[: len(content) // 2])
    done = run(tmp_path / "m.tflite", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'm.tflite'}: a truncated or corrupt TFLite")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_limit_of_the_arena_is_kept_in_patches_and_what_was_chosen_is_printed(tmp_path):
    (tmp_path / "m.tflite").write_bytes(NETWORKS["inverted residuals"]())
    words = (tmp_path / "m.tflite", "--out", tmp_path / "out", "--arena-limit", 2000)
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["arena_bytes"] <= 2000 < told["layered_arena_bytes"]
    assert told["patched_operators"] > 0
    assert told["notes"][0].startswith("computed partly in patches to fit 2,000 bytes: arena ")
    assert told["notes"][0] in run(*words).stdout.splitlines()


def test_a_limit_that_can_not_be_kept_is_one_error_and_writes_nothing(tmp_path):
    (tmp_path / "m.tflite").write_bytes(NETWORKS["inverted residuals"]())
    words = (tmp_path / "m.tflite", "--out", tmp_path / "out", "--patches", "never")
    done = run(*words, "--arena-limit", 2000)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --arena-limit: the arena needs ")
    assert 'hint: patches = "auto" computes layers patch by patch' in done.stderr
    assert not (tmp_path / "out").exists()
