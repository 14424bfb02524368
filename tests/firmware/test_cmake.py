"""CMake itself configures and builds; the fast tests put a stand-in in place of `edgekd`."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.cli.firmware import CMAKE_FOLDER
from edgekd.version import __version__

EXAMPLES = Path(__file__).parents[2] / "examples" / "firmware"
STAND_IN = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with open(here / "calls", "a") as stream:
    stream.write(repr(arguments) + "\\n")
if (here / "fail").exists():
    sys.exit("error: cortex-m4: model.c: size_kib = 20 is 16 over its limit of 4; try less")
get = lambda name: arguments[arguments.index(name) + 1]
out, name = pathlib.Path(get("--out")), get("--name")
out.mkdir(parents=True, exist_ok=True)
ending = "" if get("--output") == "c" else "_model"
(out / (name + ending + ".h")).write_text("int seven(void);\\n")
(out / (name + ending + ".c")).write_text("int seven(void) {{ return 7; }}\\n")
(out / (name + "_resolver.h")).write_text("\\n")
header = str(out / (name + ending + ".h")).replace(" ", "\\\\ ")
watched = [arguments[2], str(here / "weights.bin")]
deps = " ".join(one.replace(" ", "\\\\ ") for one in watched)
pathlib.Path(get("--depfile")).write_text(header + ": " + deps + "\\n")
"""
LISTS = """
cmake_minimum_required(VERSION 3.20)
project(app C)
find_package(edgekd {version} REQUIRED)
edgekd_add_model({arguments})
add_executable(app main.c)
target_link_libraries(app PRIVATE hook)
"""
GOOD = "NAME hook RECIPE recipe.toml TARGET cortex-m4"


def generators():
    found = [("Unix Makefiles", "make"), ("Ninja", "ninja")]
    return [pytest.param(name, tool, id=tool) for name, tool in found]


class Project:
    """A small CMake project, and a stand-in for edgekd that keeps what it was called with."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        self.tool = folder / "bin" / "edgekd"
        self.tool.write_text(STAND_IN.format(python=sys.executable))
        self.tool.chmod(0o755)
        (folder / "bin" / "weights.bin").write_text("1")
        (folder / "recipe.toml").write_text("")
        self.main("hook.h")

    def main(self, header):
        text = f'#include "{header}"\nint main(void) {{ return seven(); }}\n'
        (self.folder / "main.c").write_text(text)

    def configure(self, arguments=GOOD, generator="Unix Makefiles", version="", tool=None):
        text = LISTS.format(arguments=arguments, version=version)
        (self.folder / "CMakeLists.txt").write_text(text)
        command = ["cmake", "-B", "build", "-G", generator, f"-Dedgekd_DIR={CMAKE_FOLDER}"]
        command.append(f"-DEDGEKD_EXECUTABLE={tool or self.tool}")
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def build(self):
        command = ["cmake", "--build", "build"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    @property
    def calls(self):
        path = self.folder / "bin" / "calls"
        return [eval(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def project(tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    return Project(tmp_path / "a project")


@pytest.mark.parametrize(("generator", "tool"), generators())
def test_a_model_is_a_library_that_is_built_again_only_when_its_inputs_change(
    project, generator, tool
):
    if not shutil.which(tool):
        pytest.skip(f"no {tool} here")
    done = project.configure(generator=generator)
    assert done.returncode == 0, done.stderr
    done = project.build()
    assert done.returncode == 0, done.stdout + done.stderr
    assert subprocess.run([project.folder / "build" / "app"]).returncode == 7
    assert len(project.calls) == 1
    project.build()
    assert len(project.calls) == 1
    later = time.time() + 60
    for number, path in enumerate(("bin/weights.bin", "recipe.toml"), 2):
        os.utime(project.folder / path, (later, later))
        assert project.build().returncode == 0
        assert len(project.calls) >= number


def test_every_argument_reaches_the_command(project):
    arguments = f"{GOOD} BUDGET size_kib=64 memory_kib=32 ACCEPT simulated SET data.limit=9"
    assert project.configure(f"{arguments} DEVICE ssh://b SEED 5 QUICK").returncode == 0
    assert project.build().returncode == 0
    (call,) = project.calls
    assert call[:2] == ["firmware", "build"]
    assert call[2] == str(project.folder / "recipe.toml")
    pairs = list(itertools.pairwise(call))
    for pair in (
        ("--target", "cortex-m4"), ("--name", "hook"), ("--output", "c"),
        ("--budget", "size_kib=64"), ("--budget", "memory_kib=32"), ("--accept", "simulated"),
        ("--set", "data.limit=9"), ("--device", "ssh://b"), ("--seed", "5"),
    ):  # fmt: skip
        assert pair in pairs
    assert "--quick" in call


def test_the_micro_runtimes_sources_are_named_as_they_are_written(project):
    project.main("hook_model.h")
    assert project.configure(f"{GOOD} OUTPUT tflm").returncode == 0
    done = project.build()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_budget_fails_the_build_with_its_one_line(project):
    (project.folder / "bin" / "fail").write_text("")
    assert project.configure().returncode == 0
    done = project.build()
    assert done.returncode != 0
    told = [line for line in (done.stdout + done.stderr).splitlines() if "over its limit" in line]
    assert told == ["error: cortex-m4: model.c: size_kib = 20 is 16 over its limit of 4; try less"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("RECIPE recipe.toml TARGET cortex-m4", "NAME is missing"),
        ("NAME hook TARGET cortex-m4", "RECIPE is missing"),
        ("NAME hook RECIPE none.toml TARGET cortex-m4", "there is no recipe"),
        (f"{GOOD} OUTPUT rust", "OUTPUT is 'rust', allowed: c, tflm"),
        (f"HUDGET 1 {GOOD}", "unknown argument 'HUDGET"),
    ],
)
def test_a_wrong_call_is_refused_when_configuring(project, arguments, words):
    done = project.configure(arguments)
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())


def test_versions_are_compatible_within_a_minor_release(project):
    assert project.configure(version=__version__).returncode == 0
    major, minor, _ = __version__.split(".")
    assert project.configure(version=f"{major}.{minor}").returncode == 0
    done = project.configure(version=f"{major}.{int(minor) + 1}")
    assert done.returncode != 0
    assert f"version: {__version__}" in done.stderr


def run_example(folder, tmp_path, *options):
    build = tmp_path / "build"
    configure = [
        "cmake", "-S", str(folder), "-B", str(build), "-G", "Ninja",
        f"-Dedgekd_DIR={CMAKE_FOLDER}", f"-DEDGEKD_EXECUTABLE={Path(sys.executable).parent}/edgekd",
        f"-DCMAKE_TOOLCHAIN_FILE={folder}/toolchain.cmake", *options,
    ]  # fmt: skip
    done = subprocess.run(configure, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["cmake", "--build", str(build)]
    return build, subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tools", "run"),
    [
        (
            "linux-aarch64",
            ("aarch64-linux-gnu-gcc", "qemu-aarch64-static"),
            ["qemu-aarch64-static", "-cpu", "cortex-a76", "read_digits"],
        ),
        (
            "cortex-m4",
            ("arm-none-eabi-gcc", "qemu-system-arm"),
            [
                "qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting",
                "-kernel", "read_digits.elf",
            ],
        ),
    ],
)  # fmt: skip
def test_an_example_is_built_and_reads_digits(name, tools, run, tmp_path):
    for tool in ("cmake", "ninja", *tools):
        if not shutil.which(tool):
            pytest.skip(f"no {tool} here")
    build, done = run_example(EXAMPLES / name, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout
    ran = subprocess.run(run, cwd=build, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("digits 1.0, ")
    assert "of 7 right, arena" in ran.stdout
    _, done = run_example(EXAMPLES / name, tmp_path, "-DSIZE_KIB=100")
    assert done.returncode != 0
    told = [line for line in (done.stdout + done.stderr).splitlines() if "over its limit" in line]
    assert told
    assert "size_kib = " in told[0]
    assert "over its limit of 100; try a smaller student" in told[0]
