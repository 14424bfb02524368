"""The wheel: what is in it, and that it runs wherever pip or an import path puts it."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest
from wheels import ROOT, build_wheel

from edgekd.installed import has_module

pytestmark = pytest.mark.skipif(not has_module("hatchling"), reason="needs hatchling")

PLACES = ("target", "prefix", "user", "zip")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def placed(wheel: Path, place: str, folder: Path) -> dict[str, str]:
    """Installs the wheel as `place` says; the environment in which Python finds it there."""
    if place == "zip":
        return {"PYTHONPATH": str(wheel)}
    if place == "user":  # hidden in a virtual environment, so its packages come from the path
        python, options = base_python(), ["--user", "--break-system-packages"]
        where = {"PYTHONUSERBASE": str(folder), "PYTHONPATH": sysconfig.get_path("purelib")}
    else:
        python, options = sys.executable, [f"--{place}={folder}"]
        below = sysconfig.get_path("purelib", vars={"base": str(folder)})
        where = {"PYTHONPATH": str(folder) if place == "target" else below}
    flags = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install"]
    command = [*pip, *flags, *options, str(wheel)]
    subprocess.run(command, env=os.environ | where, check=True, capture_output=True)
    return where


def base_python() -> str:
    return str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")


def edgekd(where: Mapping[str, str], place: str, folder: Path, *arguments: str) -> str:
    python = base_python() if place == "user" else sys.executable
    command = [python, "-m", "edgekd", *arguments]
    environment = os.environ | where | {"EDGEKD_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["targets", "calibration"])
def test_the_wheel_has_every_target_and_calibration_set(names: set[str], kind: str):
    shipped = {path.name for path in (ROOT / kind).glob("*.toml")}
    inside = {name.rpartition("/")[2] for name in names if name.startswith(f"edgekd/{kind}/")}
    assert inside == shipped


def test_the_wheel_has_every_file_of_the_package_and_nothing_beside_it(names: set[str]):
    tracked = subprocess.run(
        ["git", "ls-files", "edgekd"], cwd=ROOT, check=True, text=True, capture_output=True
    ).stdout.split()
    assert set(tracked) <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"edgekd", next(name for name in tops if name.endswith(".dist-info"))}


def test_the_wheel_says_where_the_project_lives(wheel: Path, names: set[str]):
    (file,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(file).decode())
    labels = {line.split(",")[0] for line in metadata.get_all("Project-URL", [])}
    assert labels == {"Homepage", "Documentation", "Repository", "Changelog", "Issues"}
    assert metadata["License-Expression"] == "Apache-2.0"


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_an_installed_wheel_finds_its_data_from_any_folder(wheel: Path, tmp_path: Path, place: str):
    where = placed(wheel, place, tmp_path / "site")
    work = tmp_path / "elsewhere"
    work.mkdir()
    listed = json.loads(edgekd(where, place, work, "targets", "--json"))
    shipped = {path.stem for path in (ROOT / "targets").glob("*.toml")}
    assert {target["name"] for target in listed} == shipped
    edgekd(where, place, work, "init", ".")
    assert (work / "recipe.toml").is_file()
    code = "import edgekd; print(edgekd.__file__)"
    python = base_python() if place == "user" else sys.executable
    found = subprocess.run(
        [python, "-c", code], cwd=work, env=os.environ | where, text=True, capture_output=True
    ).stdout
    assert str(wheel if place == "zip" else tmp_path / "site") in found


@pytest.mark.slow
@pytest.mark.parametrize("place", ["target", "zip"])
def test_an_installed_wheel_plans_a_run_outside_a_clone(wheel: Path, tmp_path: Path, place: str):
    where = placed(wheel, place, tmp_path / "site")
    work = tmp_path / "elsewhere"
    work.mkdir()
    edgekd(where, place, work, "compress", "--target", "x86", "--dry-run")


def test_a_folder_of_the_working_directory_comes_before_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from edgekd.values.lookup import toml_files

    (tmp_path / "targets").mkdir()
    own = tmp_path / "targets" / "x86.toml"
    own.write_text("")
    monkeypatch.chdir(tmp_path)
    files = toml_files("targets")
    assert files["x86"] == own
    assert files["cortex-m4"] == ROOT / "targets" / "cortex-m4.toml"
