"""The scripts in benchmarks/ keep up with the package: what they import from it exists."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) for every import, wherever it stands in the file; "" for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def exists(module: str, name: str) -> bool:
    try:
        found = importlib.import_module(module)
        return not name or hasattr(found, name) or bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


def local(script: Path, module: str, name: str) -> bool:
    """Whether a file beside the script, above it or among the tests' support defines the name."""
    folders = [script.parent, ROOT / "benchmarks", ROOT / "tests/support"]
    text = script.read_text(encoding="utf-8")
    folders += [room for room in (ROOT / "benchmarks").iterdir() if f'"{room.name}"' in text]
    files = [path for folder in folders if (path := folder / f"{module}.py").exists()]
    return any(name in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_that_a_script_imports_from_the_package_exists(script: Path) -> None:
    imports = list(imported(ast.parse(script.read_text(encoding="utf-8"))))
    missing = [
        f"{module}:{name}"
        for module, name in imports
        if module.split(".")[0] == "edgekd" and not exists(module, name)
    ]
    neighbours = {path.stem for path in SCRIPTS} | {"litert_reference", "tflite_files"}
    missing += [
        f"{module}:{name}"
        for module, name in imports
        if module in neighbours and not local(script, module, name)
    ]
    assert missing == []
