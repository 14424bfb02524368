"""Every command of the README and the pages: all are read by the command line, and those that need
no other machine are run, in a page's order, in a folder that has the files which they name."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shell_in
from pages import PAGES, README, ROOT, commands_of, words_of

from edgekd.cli import app

RUN_BY_ANOTHER_TEST = ("your-own-model", "index", "data", "detection")
LONG = ("compression", "firmware", "firmware-c")
ELSEWHERE = re.compile(
    r"^(pip|apt|make|ssh|ssh-copy-id|optuna-dashboard|export) |ssh://|emulated://|nvidia-smi"
    r"|board (create|start|stop|remove)"
)
METER = "import time\nwhile True:\n    print('-', 5.0, flush=True)\n    time.sleep(0.05)\n"


def edgekd_lines() -> list[str]:
    lines = [line for page in [README, *PAGES] for line in commands_of(page)]
    return sorted({line for line in lines if line.startswith("edgekd ")})


@pytest.mark.parametrize("line", edgekd_lines())
def test_the_command_line_reads_the_command(line):
    words = words_of(line.split(" > ")[0])
    app([*words[1:], "--help"], standalone_mode=False)  # an unknown option is an error before help


def test_an_option_that_does_not_exist_would_be_noticed():
    with pytest.raises(Exception, match="--fast"):
        app(["bench", "model.onnx", "--fast", "--help"], standalone_mode=False)


def shortened(line: str, folder: Path) -> str:
    """The command with one epoch for each stage and a brief measurement."""
    words = words_of(line)
    measures = words[1] in ("compress", "bench", "search") or words[1:3] == ["firmware", "build"]
    if not measures or "--dry-run" in words or words[2:3] in (["status"], ["report"]):
        return line
    extra = [] if "--quick" in words else ["--quick"]
    if words[1] != "bench":
        named = [word for word in words if word.endswith(".toml")]
        recipe = folder / named[0] if named else ROOT / "edgekd/recipes/digits.toml"
        stages = tomllib.loads(recipe.read_text())["stages"]
        for number, stage in enumerate([] if "stages=[]" in words else stages, 1):
            extra += ["--set", f"stage.{number}.epochs={stage.get('steps', 1)}"]
    if words[1] == "search" or "--auto" in words:
        extra += ["--trials", "1" if "--auto" in words else "2"]
    if "--trials" in extra or "/front/" in line:
        extra += ["--backend", "onnx"]
    return shlex.join([*words, *extra])


def quantize(floating: Path, made: Path, samples: np.ndarray) -> None:
    """An int8 file by ONNX Runtime's own quantizer."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([{"input": samples}])

        def get_next(self) -> Any:
            return next(self.rows, None)

    quantize_static(floating, made, Reader())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """What the pages' commands name: a recipe, and files of a run of it."""
    folder = tmp_path_factory.mktemp("made")
    run = shell_in(folder, folder / "bin", folder / "cache")
    run("edgekd init .")
    target = re.sub(r"\[backends\.tvm\][^\[]*", "", (ROOT / "targets/x86.toml").read_text())
    (folder / "pc.toml").write_text(target.replace('name = "x86"', 'name = "pc"'))
    line = "edgekd compress recipe.toml --target pc.toml --out run"
    run(shortened(line, folder), codes=(0, 1))
    artifacts = folder / "run/artifacts/pc"
    for name, source in (
        ("model.onnx", "model.onnx"), ("model.tflite", "model.tflite"),
        ("student.tflite", "model.tflite"), ("teacher.tflite", "model.tflite"),
    ):  # fmt: skip
        shutil.copy(artifacts / source, folder / name)
    shutil.copy(artifacts / "teacher.onnx", folder / "teacher.onnx")
    samples = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "samples.npz", x=samples)
    quantize(folder / "teacher.onnx", folder / "int8.onnx", samples)
    (folder / "read_my_meter.py").write_text(METER)
    for name in ("edgekd", "examples"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "run").rename(folder / "finished")
    return folder


def pages() -> list[Any]:
    """A parameter for each page, with the mark that its commands' length asks for."""
    return [
        pytest.param(
            page, id=page.stem, marks=pytest.mark.long if page.stem in LONG else pytest.mark.slow
        )
        for page in [README, *PAGES]
        if page.stem not in RUN_BY_ANOTHER_TEST and commands_of(page)
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", pages())
def test_the_commands_of_a_page_do_what_they_say(page, made):
    lines = [line for line in commands_of(page) if not ELSEWHERE.search(line)]
    run = shell_in(made, made / "bin", made / "cache")
    for line in lines:
        short = shortened(line, made) if line.startswith("edgekd ") else line
        # One epoch breaks the accuracy budget, and emulated numbers verify none: no errors.
        run(short, codes=(0,) if short == line else (0, 1, 4))
