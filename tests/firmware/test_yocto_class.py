"""The class for Yocto, parsed and run by bitbake's own parser and task executor."""

import json
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from edgekd_options import check, options_of

from edgekd.cli.firmware import YOCTO_FOLDER

pytestmark = pytest.mark.skipif(
    find_spec("bb") is None, reason="needs bitbake's parser: pip install bitbake-setup"
)

RUNNER = Path(__file__).parent / "bitbake_run.py"
STAND_IN = """#!/bin/sh
echo "$@" >> {folder}/calls
[ ! -e {folder}/fail ] || {{ echo "error: size_kib = 20 is 16 over its limit of 4" >&2; exit 1; }}
case "$1 $2" in
  compress*)
    mkdir -p {work}/edgekd/run/artifacts/board
    touch {work}/edgekd/run/artifacts/board/model.tflite {work}/edgekd/run/edgekd.lock
    [ ! -e {folder}/npu ] || touch {work}/edgekd/run/artifacts/board/model_vela.tflite;;
  firmware*)
    mkdir -p {work}/edgekd/sources
    touch {work}/edgekd/sources/hook_model.h {work}/edgekd/sources/hook_model.c;;
esac
"""
RECIPE = """
inherit edgekd_model
EDGEKD_TARGET = "cortex-a53"
EDGEKD_BUDGETS = "size_kib=4 accuracy_drop=1"
EDGEKD_ACCEPT = "simulated"
"""


class Bitbake:
    """A folder with a recipe for `hook-model` and a stand-in of edgekd on the PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "work" / "hook-model"
        tool = folder / "bin" / "edgekd"
        tool.parent.mkdir()
        tool.write_text(STAND_IN.format(folder=folder, work=self.work))
        tool.chmod(0o755)

    def run(self, recipe, *tasks, settings=""):
        path = self.folder / "hook-model_1.2.bb"
        path.write_text(recipe)
        command = [sys.executable, str(RUNNER), str(self.folder), str(YOCTO_FOLDER), str(path)]
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "SETTINGS": settings,
        }
        done = subprocess.run(
            [*command, *tasks], capture_output=True, text=True, env=environment, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    @property
    def calls(self):
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def installed(self):
        root = self.work / "image"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def bitbake(tmp_path):
    return Bitbake(tmp_path)


def test_the_class_compresses_verifies_and_packs_what_the_run_made(bitbake):
    told, _ = bitbake.run(RECIPE, "do_compile", "do_install")
    assert told["skipped"] is None
    assert told["tasks"] == {"do_compile": 0, "do_install": 0}
    work = bitbake.work
    assert bitbake.calls == [
        f"compress {work}/recipe.toml --target cortex-a53 --out {work}/edgekd/run --offline "
        "--no-progress --budget size_kib=4 --budget accuracy_drop=1 --accept simulated",
        f"verify {work}/edgekd/run",
    ]
    assert bitbake.installed() == [
        "usr/share/edgekd/hook_model/edgekd.lock",
        "usr/share/edgekd/hook_model/model.tflite",
    ]
    assert told["variables"]["FILES:hook-model"].split() == [
        "/usr/share/hook-model",
        "/usr/share/edgekd",
    ]


@pytest.mark.parametrize(
    ("sources", "npu", "model"),
    [
        ("c", True, "model.tflite"),
        ("tflm", True, "model_vela.tflite"),
        ("tflm", False, "model.tflite"),
    ],
)
def test_sources_are_made_of_the_files_that_were_held_against_the_budgets(
    sources, npu, model, bitbake
):
    if npu:
        (bitbake.folder / "npu").touch()
    recipe = f'{RECIPE}EDGEKD_SOURCES = "{sources}"\nEDGEKD_NAME = "hook"\n'
    told, _ = bitbake.run(recipe, "do_compile", "do_install")
    assert told["tasks"] == {"do_compile": 0, "do_install": 0}
    run = bitbake.work / "edgekd"
    assert bitbake.calls[2:] == [
        f"firmware {sources} {run}/run/artifacts/board/{model} --out {run}/sources --name hook"
    ]
    headers = [name for name in bitbake.installed() if name.startswith("usr/include")]
    assert headers == ["usr/include/edgekd/hook_model.c", "usr/include/edgekd/hook_model.h"]


def test_a_broken_budget_fails_the_task_with_its_line(bitbake):
    (bitbake.folder / "fail").touch()
    told, log = bitbake.run(RECIPE, "do_compile")
    assert told["tasks"] == {"do_compile": 1}
    assert len(bitbake.calls) == 1
    logs = list((bitbake.work / "temp").glob("log.do_compile.*"))
    assert "error: size_kib = 20 is 16 over its limit of 4" in logs[0].read_text() + log


def test_files_of_an_earlier_run_are_not_packed(bitbake):
    left = bitbake.work / "edgekd" / "run" / "artifacts" / "other" / "model.onnx"
    left.parent.mkdir(parents=True)
    left.touch()
    bitbake.run(RECIPE, "do_compile", "do_install")
    assert "usr/share/edgekd/hook_model/model.onnx" not in bitbake.installed()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("inherit edgekd_model\n", "EDGEKD_TARGET is not set"),
        (RECIPE + 'EDGEKD_SOURCES = "rust"\n', "EDGEKD_SOURCES is neither 'c' nor 'tflm'"),
    ],
)
def test_a_recipe_that_can_not_work_is_skipped_with_the_reason(recipe, words, bitbake):
    told, _ = bitbake.run(recipe)
    assert words in told["skipped"]


def test_releases_that_unpack_into_a_folder_of_their_own_are_followed(bitbake):
    told, _ = bitbake.run(RECIPE, settings="UNPACKDIR=/somewhere/sources")
    assert told["variables"]["EDGEKD_RECIPE"] == "/somewhere/sources/recipe.toml"
    told, _ = bitbake.run(RECIPE)
    assert told["variables"]["EDGEKD_RECIPE"] == f"{bitbake.work}/recipe.toml"


def test_the_network_stays_off_and_the_tool_can_come_from_the_machine(bitbake):
    told, _ = bitbake.run(RECIPE)
    assert told["network"] is None  # bitbake lets a task with any value of that flag connect
    assert told["variables"]["DEPENDS"].split() == ["python3-edgekd-native"]
    told, _ = bitbake.run(RECIPE + 'EDGEKD_DEPENDS = ""\n')
    assert told["variables"]["DEPENDS"].split() == []


def test_the_class_uses_options_that_there_are(bitbake):
    (bitbake.folder / "npu").touch()
    bitbake.run(RECIPE + 'EDGEKD_SOURCES = "c"\n', "do_compile")
    known = {
        "compress": options_of("compress"),
        "verify": options_of("verify"),
        "firmware c": options_of("firmware", "c"),
    }
    assert [call.split()[0] for call in bitbake.calls][:1] == ["compress"]
    for call in bitbake.calls:
        check(shlex.join(["edgekd", *shlex.split(call)]), known)
