"""Imports point down only, and siblings don't import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "edgekd"

# From the bottom up; a part may import its own tier and those below. A folder stands for its files.
TIERS = (
    ("errors", "__init__"),
    ("registry", "config", "installed"),
    ("store", "storage", "options", "factories", "formats", "artifact", "measurement", "candidate",
     "recipe", "target", "cost", "data", "models", "checkpoint", "networks", "programs",
     "onnx_files", "teachers", "lookup", "views", "tasks", "processes", "resampling"),
    ("evaluation", "training", "taps", "teaching", "schemes", "schedules", "losses", "criteria",
     "quant", "pruning", "lowrank", "placement", "tvm_compile", "divergence", "parity", "firmware",
     "boards"),
    ("stages", "backends", "devices", "meters", "diagnostics", "accuracy", "inspection", "budgets",
     "measuring", "blame", "compiled"),
    ("report", "onnx_alone", "plan", "pipeline", "proof", "compress", "diagnosing", "bench",
     "builds", "verification", "methods", "snippets", "doctor", "progress"),
    ("cli", "__main__"),
)  # fmt: skip

# Within these folders each file is one method, and no method knows another.
SIBLINGS = ("stages", "losses", "schedules", "criteria", "schemes", "backends", "diagnostics")


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def tier_of(part: str) -> int:
    for tier, parts in enumerate(TIERS):
        if part in parts:
            return tier
    raise AssertionError(f"'{part}' has no tier: add it to TIERS in {Path(__file__).name}")


def imports_of(path: Path) -> set[str]:
    """Every module of the package that a file names, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgekd"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names if name.name.startswith("edgekd"))
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_nothing_from_above_it(path):
    relative = path.relative_to(ROOT)
    part = relative.parts[0].removesuffix(".py")
    above = [name for name in imports_of(path) if tier_of(part_of(name)) > tier_of(part)]
    assert above == []


@pytest.mark.parametrize("folder", SIBLINGS)
def test_siblings_do_not_import_each_other(folder):
    names = {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")}
    for path in (ROOT / folder).glob("*.py"):
        others = {f"edgekd.{folder}.{name}" for name in names - {path.stem}}
        assert imports_of(path) & others == set(), path.name
