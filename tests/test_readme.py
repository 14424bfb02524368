"""Every command of the README is run, in its order, in one folder."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edgekd.run.plan import typed_stage
from edgekd.values.recipe import Recipe
from edgekd.values.tables import parse

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SHORT = ["--set", "stage.distill.epochs=1", "--set", "stage.prune.epochs=1"]
SHORT += ["--set", "stage.quantize.epochs=1"]


def commands() -> list[list[str]]:
    """The lines of the README's sh blocks that start with edgekd, without their remarks."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("edgekd ")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_does_what_it_says(tmp_path):
    environment = {**os.environ, "EDGEKD_CACHE": str(tmp_path / "cache")}
    for command in commands():
        short = SHORT if command[1] == "compress" else []
        done = subprocess.run(
            [sys.executable, "-m", "edgekd", *command[1:], *short],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        # One epoch breaks the accuracy budget, which is exit code 1 and no error.
        assert done.returncode in ((0, 1) if short else (0,)), f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    assert (tmp_path / "runs/mine/report.html").is_file()


def test_make_knows_the_two_commands_of_the_first_screen():
    first = README.split("## One real result")[0]
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", first, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_the_recipe_of_the_readme_is_a_recipe():
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    recipe = parse(Recipe, tomllib.loads(text), "README.md")
    kinds = [typed_stage(number, table).kind for number, table in enumerate(recipe.stages, 1)]
    assert kinds == ["distill", "prune", "quantize"]
