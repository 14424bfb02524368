"""Damaged TFLite files: an error with exit code 2, or C that stays within its memory."""

import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hostile_files import bent, damaged
from operator_cases import CASES

from edgekd.errors import InputError
from edgekd.firmware import hosted
from edgekd.firmware.generate import generate

SECONDS = 20
SAMPLES = 24


def judged(content: bytes, path: Path) -> str | None:
    """The C, or None for a file that is refused; anything but an input error fails the test."""
    path.write_bytes(content)
    signal.alarm(SECONDS)  # a hang ends the whole run
    try:
        return generate(path, "m").source
    except InputError as error:  # exit code 2
        return None if str(path) in str(error) else pytest.fail(f"no place: {error}")
    finally:
        signal.alarm(0)


def tried(each: int, folder: Path) -> tuple[int, list[bytes]]:
    """How many files were tried, and those accepted whose C is not that of the sound file."""
    count, accepted = 0, []
    for seed, make in enumerate(CASES.values()):
        sound = make()
        told = judged(sound, folder / "m.tflite")
        for hostile in (damaged, bent):
            for content in hostile(sound, each, seed):
                count += 1
                found = judged(content, folder / "m.tflite")
                if found is not None and found != told:
                    accepted.append(content)
    return count, accepted


def test_damaged_files_are_refused_with_exit_code_2_or_become_c(tmp_path):
    count, accepted = tried(5, tmp_path)
    assert count == 10 * len(CASES)
    assert 0 < len(accepted) < count / 4


@pytest.mark.long
def test_ten_thousand_damaged_files_neither_crash_nor_hang_nor_give_c_that_leaves_its_memory(
    tmp_path,
):
    count, accepted = tried(10_000 // (2 * len(CASES)) + 1, tmp_path)
    assert count >= 10_000
    if shutil.which("gcc") is None:
        pytest.skip("the accepted ones need gcc")
    random.Random(0).shuffle(accepted)
    for number, content in enumerate(accepted[:SAMPLES]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "m.tflite").write_bytes(content)
        generated = generate(folder / "m.tflite", "m")
        if generated.numbers["arena_bytes"] > 1 << 20:
            continue
        _, source = generated.write(folder)
        size = generated.numbers["input_bytes"]
        x = np.stack([np.full(size, -128, np.int8), np.full(size, 127, np.int8)])
        hosted.run(hosted.build(source, folder, ("-O1", *hosted.SANITIZERS)), x)
