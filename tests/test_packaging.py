"""What pyproject.toml asks for: pins that fit it, extras that fit each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

APART = {"all", "dev", "docs", "release", "tflite-runtime"}
"""What `all` is not made of: tools for developers, and a runtime for boards with an older numpy."""


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_all_has_every_extra_that_compressing_can_use():
    (requirement,) = map(Requirement, EXTRAS["all"])
    assert requirement.name == "edgekd"
    assert requirement.extras == set(EXTRAS) - APART


@pytest.mark.parametrize("extra", ["", *sorted(set(EXTRAS) - {"all", "tflite-runtime", "release"})])
def test_the_pinned_environment_meets_each_requirement(extra: str):
    pinned = pins()
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement.name


def test_each_package_is_pinned_once():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert len(names) == len(set(names))


def test_the_tflite_extra_caps_typing_extensions_where_its_xdsl_does():
    (bound,) = [
        Requirement(line) for line in EXTRAS["tflite"] if line.startswith("typing-extensions")
    ]
    assert bound.specifier.contains("4.12.2")
    assert not bound.specifier.contains("4.13.0")


def test_every_extra_has_an_upper_bound_on_each_package():
    bare = {"tflite-micro", "hatchling"}  # dated builds; the build backend
    for line in [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]:
        requirement = Requirement(line)
        if requirement.name not in {"edgekd", *bare}:
            assert re.search(r"<|==", str(requirement.specifier)), requirement.name
