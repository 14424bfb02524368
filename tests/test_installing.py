"""Installing edgekd as anyone would: plain pip, no pins, an empty environment. Uses the network."""

import itertools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from wheels import ROOT, build_wheel

from edgekd.installed import has_module, versions_of

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not has_module("hatchling"), reason="needs hatchling"),
]

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TOGETHER = sorted(set(EXTRAS) - {"all", "dev", "docs", "release", "tflite-runtime"})
ASKED = [
    *EXTRAS,
    *(",".join(pair) for pair in itertools.combinations(TOGETHER, 2)),
    "all,dev,docs,release",
]


def clean_environment(folder: Path) -> dict[str, str]:
    named = {"EDGEKD_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | named


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(folder)
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


def new_python(folder: Path) -> str:
    """The interpreter of a new environment with a pip that resolves without downloading."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"]
    subprocess.run(command, check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_python(tmp_path_factory.mktemp("empty") / "venv")


def resolve(python: str, wheel: Path, extras: str, folder: Path, *options: str) -> str:
    """What pip would install; an assertion with its own words where it finds nothing."""
    wanted = f"edgekd[{extras}] @ file://{wheel}"
    done = run([python, "-m", "pip", "install", "--dry-run", *options, wanted], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("extras", ASKED)
def test_pip_resolves_each_extra_and_each_pair(
    wheel: Path, empty: str, tmp_path: Path, extras: str
):
    chosen = resolve(empty, wheel, extras, tmp_path)
    if extras == "tflite-runtime":
        assert "numpy-1." in chosen
    assert " torch-2." in chosen


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_pip_resolves_everything_for_other_pythons(
    wheel: Path, empty: str, tmp_path: Path, version: str
):
    options = [f"--python-version={version}", "--only-binary=:all:", f"--target={tmp_path / 'x'}"]
    assert "apache-tvm-0.26" in resolve(empty, wheel, "all", tmp_path, *options)


def test_an_empty_environment_compresses_outside_a_clone(wheel: Path, tmp_path: Path):
    python = new_python(tmp_path / "venv")
    install = [python, "-m", "pip", "install", "--quiet", f"edgekd[onnx] @ file://{wheel}"]
    assert run(install, tmp_path).returncode == 0
    assert run([python, "-m", "pip", "check"], tmp_path).stdout == "No broken requirements found.\n"
    command = [python, "-m", "edgekd", "compress", "--target", "x86", "--quick", "--out", "out"]
    epochs = [f"--set=stage.{stage}.epochs=1" for stage in ("distill", "prune", "quantize")]
    done = run([*command, *epochs, "--budget=accuracy_drop=99"], tmp_path)
    assert done.returncode == 3, done.stderr  # two of the target's backends gave no file
    assert "verdict: pass" in done.stdout
    for package, extra in (("litert-torch", "tflite"), ("apache-tvm", "tvm")):
        assert package in done.stderr
        assert f"pip install 'edgekd[{extra}]'" in done.stderr
    files = {path.name for path in (tmp_path / "out" / "artifacts" / "x86").iterdir()}
    assert "model.onnx" in files
    assert not files & {"model.tflite", "model.so"}


@pytest.mark.parametrize(
    ("tvm", "ffi"), [("0.26.0", "0.1.13.post3"), ("0.27.0.post1", "0.1.14.post1")]
)
def test_either_release_of_tvm_passes_the_tests_of_kernels(tmp_path: Path, tvm: str, ffi: str):
    """The one that the extra asks for, and the one that newer environments may have already."""
    if versions_of(["apache-tvm"]).get("apache-tvm") == tvm:
        pytest.skip("the other tests ran with this release")
    other = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={other}"]
    packages = [f"apache-tvm=={tvm}", f"apache-tvm-ffi=={ffi}", "typing-extensions"]
    subprocess.run([*install, *packages], check=True, capture_output=True)
    environment = clean_environment(tmp_path) | {"PYTHONPATH": f"{ROOT}:{other}"}
    shown = "import tvm; print(tvm.__version__)"
    version = subprocess.run(
        [sys.executable, "-c", shown], env=environment, text=True, capture_output=True
    ).stdout
    assert tvm.startswith(version.strip())
    tests = [str(ROOT / "tests" / "backends" / "tvm"), "-m", "not slow and not long"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=ROOT, env=environment, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
