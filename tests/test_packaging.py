"""What pyproject.toml asks for: pins that fit it, extras that fit each other."""

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgekd.devices.doctor import PACKAGES
from edgekd.values.backend_lookup import examined_backends

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

APART = {"all", "datasets", "dev", "docs", "ray", "release", "tflite-runtime", "ultralytics"}
"""What `all` is not made of: tools for developers, a runtime for boards with an older numpy, a
library whose licence is AGPL-3.0, one that only those who saved their data with it need, and a
large one for clusters."""


UNPINNED = {"all", "tflite-runtime", "release", "ultralytics"}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_all_has_every_extra_that_compressing_can_use():
    (requirement,) = map(Requirement, EXTRAS["all"])
    assert requirement.name == "edgekd"
    assert requirement.extras == set(EXTRAS) - APART


@pytest.mark.parametrize("extra", ["", *sorted(set(EXTRAS) - UNPINNED)])
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


PACKAGE = ROOT / "edgekd"
MODULES = {
    "sklearn": "scikit-learn", "PIL": "pillow",
    "lightning_fabric": "lightning-fabric", "ethosu": "ethos-u-vela",
    "torch_pruning": "torch-pruning", "tvm": "apache-tvm", "tomli_w": "tomli-w",
    "tflite_micro": "tflite-micro", "ai_edge_litert": "ai-edge-litert",
    "litert_torch": "litert-torch", "tensorflow": "tensorflow-cpu",
}  # fmt: skip
"""The packages of those modules that have another name."""

COME_ALONG = {
    "markupsafe": "jinja2", "click": "typer", "flatbuffers": "ai-edge-litert",
    "ai_edge_quantizer": "litert-torch", "ml_dtypes": "onnx", "google": "onnx",
    "sqlalchemy": "optuna",
}  # fmt: skip
"""Modules that a package we ask for cannot do without."""

WHERE_PRESENT = {"tensorrt", "tflite_runtime", "IPython"}
"""What is used where it is there: by the agent on a board, in a notebook."""


def packages_of(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


@functools.cache
def sources() -> list[tuple[Path, ast.Module]]:
    return [(file, ast.parse(file.read_text())) for file in sorted(PACKAGE.rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"edgekd", "__future__"}


def test_every_import_belongs_to_a_package_that_is_asked_for():
    declared = packages_of(PROJECT["dependencies"]).union(*map(packages_of, EXTRAS.values()))
    for file, tree in sources():
        for module in imported(tree) - WHERE_PRESENT:
            package = COME_ALONG.get(module) or MODULES.get(module, module)
            assert package in declared, f"{file.relative_to(ROOT)} imports {module}"


def test_nothing_optional_is_imported_before_it_is_used():
    always = packages_of(PROJECT["dependencies"])
    for file, tree in sources():
        top = ast.Module([node for node in tree.body if not isinstance(node, DEFERRED)], [])
        for module in imported(top):
            package = COME_ALONG.get(module) or MODULES.get(module, module)
            assert package in always, f"{file.relative_to(ROOT)} imports {module} at the top"


DEFERRED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If)


def hinted() -> set[tuple[str, str]]:
    """Each package with its extra, as the backends and every `MissingPackage(package, extra)` that
    is written out in the sources name them."""
    infos, _ = examined_backends()
    found = {
        (each.name, each.extra)
        for info in infos.values()
        for each in info.needs.packages
        if each.extra
    }
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingPackage":
                words = [word.value for word in node.args[:2] if isinstance(word, ast.Constant)]
                if len(words) == 2:
                    found.add((str(words[0]), str(words[1])))
    return found


def test_the_hints_are_found_in_the_sources():
    assert {("nncf", "nncf"), ("ethos-u-vela", "ethos")} <= hinted()


@pytest.mark.parametrize(("package", "extra"), sorted(hinted()))
def test_a_hint_names_an_extra_that_brings_the_package(package: str, extra: str):
    assert package.split("|")[0] in packages_of(EXTRAS[extra])


def test_each_extra_that_is_mentioned_exists():
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        for extras in re.findall(r"edgekd\[([a-z][a-z,-]*)\]", file.read_text()):
            assert set(extras.split(",")) <= set(EXTRAS), file


def test_doctor_names_an_extra_that_brings_the_package():
    for names, _, requirement in PACKAGES:
        extras = Requirement(requirement).extras
        lines = [line for extra in extras for line in EXTRAS[extra]]
        brought = packages_of(lines or PROJECT["dependencies"])
        assert brought & set(names.split("|")), names
