"""make and ninja themselves read what is written."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.run.depfile import depfile_text, escaped

NAMES = (
    "plain.toml",
    "with space.toml",
    "hash#tag.npz",
    "dollar$HOME.txt",
    "per%cent.toml",
    "ä.py",
)


def ninja():
    beside = Path(sys.executable).with_name("ninja")
    return str(beside) if beside.exists() else shutil.which("ninja")


@pytest.mark.parametrize(
    ("path", "text"),
    [("a b", "a\\ b"), ("a#b", "a\\#b"), ("a$b", "a$$b"), ("/x/y.toml", "/x/y.toml")],
)
def test_marks_that_mean_something_are_escaped(path, text):
    assert escaped(path) == text


@pytest.mark.parametrize("path", ["a\nb", "a\tb", "a:b", "a\\b"])
def test_what_make_cannot_say_is_refused(path):
    with pytest.raises(InputError, match="make can't represent"):
        escaped(path)


def build_twice(run, folder, output, inputs):
    """How often the rule ran: at first, again at once, and after each input was touched."""
    run()
    counts = [len((folder / "ran").read_text())]
    run()
    counts.append(len((folder / "ran").read_text()))
    for path in inputs:
        later = time.time() + 5 * len(counts)
        os.utime(path, (later, later))
        (folder / "clock").write_text(str(later + 1))
        run()
        counts.append(len((folder / "ran").read_text()))
    return counts


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "a project"
    folder.mkdir()
    inputs = [folder / name for name in NAMES]
    for path in inputs:
        path.write_text("x")
    script = folder / "rule.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "with open(here / 'ran', 'a') as s: s.write('x')\n"
        "out = here / 'run' / 'edgekd.lock'\n"
        "out.parent.mkdir(exist_ok=True)\n"
        "out.write_text('')\n"
        "clock = here / 'clock'\n"
        "if clock.exists(): os.utime(out, (float(clock.read_text()),) * 2)\n"
        "(here / 'deps.d').write_text((here / 'deps.in').read_text())\n"
    )
    (folder / "deps.in").write_text(depfile_text("run/edgekd.lock", inputs))
    return folder, inputs


def runs_of(folder, command, inputs):
    """How often the rule had run after each build: twice as it is, then after each change."""

    def run():
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    return build_twice(run, folder, "run/edgekd.lock", inputs)


def test_make_runs_again_for_each_file_and_only_then(project):
    if not shutil.which("make"):
        pytest.skip("no make here")
    folder, inputs = project
    rule = f"run/edgekd.lock:\n\t{sys.executable} rule.py\n-include deps.d\n"
    (folder / "Makefile").write_text(rule)
    assert runs_of(folder, ["make"], inputs) == [1, *range(1, len(inputs) + 2)]


def test_ninja_runs_again_for_each_file_and_only_then(project):
    if not ninja():
        pytest.skip("no ninja here")
    folder, inputs = project
    (folder / "build.ninja").write_text(
        f"rule edgekd\n  command = {sys.executable} rule.py\n  depfile = deps.d\n"
        "build run/edgekd.lock: edgekd\n"
    )
    assert runs_of(folder, [ninja()], inputs) == [1, *range(1, len(inputs) + 2)]
