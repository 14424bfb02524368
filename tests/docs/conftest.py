"""A folder to work in as a reader does, with `edgekd` and `python` on the path."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ROOT

Shell = Callable[..., str]


def shell_in(folder: Path, programs: Path, cache: Path) -> Shell:
    """Runs a command line in `folder`, with this interpreter and this edgekd, and gives what it
    printed; an exit code that is not among `codes` fails."""
    programs.mkdir(parents=True, exist_ok=True)
    for name, arguments in (("python", ""), ("edgekd", " -P -m edgekd")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EDGEKD_CACHE": str(cache),
    }

    def run(line: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode in codes, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


@pytest.fixture
def shell(tmp_path: Path) -> tuple[Path, Shell]:
    """An empty folder, and what runs a command line in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder, shell_in(folder, tmp_path / "bin", tmp_path / "cache")
